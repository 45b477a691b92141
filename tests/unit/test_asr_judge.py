"""The judge: its cache, its bounds, and (with weights) what it hears."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from espnet_taste.bin.judging import DEFAULT_JUDGE
from espnet_taste.eval.asr_judge import (
    JudgeCache,
    JudgeOptions,
    Transcript,
    WhisperJudge,
    audio_hash,
    digit_tokens,
    judge_all,
    token_bound,
)
from espnet_taste.eval.duration import TimedWord

DATA = Path(__file__).parents[3] / "shared" / "data" / "librispeech_excerpts" / "test"


class CountingJudge:
    """Hears the number of samples; counts how often it was asked."""

    def __init__(self, name="fake-1"):
        self.name = name
        self.calls = 0

    def transcribe(self, audio):
        self.calls += 1
        word = TimedWord(f"samples{len(audio)}", 0.0, 0.5)
        return Transcript(word.text, (word,))


def signals(*sizes):
    return [(f"u{size}", np.ones(size, dtype=np.float32)) for size in sizes]


def test_a_second_run_asks_nothing(tmp_path):
    judge, cache = CountingJudge(), tmp_path / "eval" / "judge.jsonl"

    first = judge_all(judge, signals(3, 4), cache)
    second = judge_all(judge, signals(3, 4), cache)

    assert judge.calls == 2
    assert first == second
    assert second["u4"].words == (TimedWord("samples4", 0.0, 0.5),)


def test_a_longer_set_asks_only_for_what_is_new(tmp_path):
    judge, cache = CountingJudge(), tmp_path / "judge.jsonl"
    judge_all(judge, signals(3), cache)

    judge_all(judge, signals(3, 4), cache)

    assert judge.calls == 2


def test_changed_audio_is_heard_again(tmp_path):
    judge, cache = CountingJudge(), tmp_path / "judge.jsonl"
    judge_all(judge, [("u", np.ones(3, dtype=np.float32))], cache)

    heard = judge_all(judge, [("u", np.ones(5, dtype=np.float32))], cache)

    assert heard["u"].text == "samples5"


def test_another_judge_does_not_use_this_ones_transcripts(tmp_path):
    cache = tmp_path / "judge.jsonl"
    judge_all(CountingJudge("fake-1"), signals(3), cache)
    other = CountingJudge("fake-2")

    judge_all(other, signals(3), cache)

    assert other.calls == 1


def test_a_line_that_two_processes_wrote_is_one_unless_they_heard_two_things(tmp_path):
    cache = tmp_path / "judge.jsonl"
    judge_all(CountingJudge(), signals(3), cache)
    line = cache.read_text()
    cache.write_text(line * 2)
    judge = CountingJudge()

    assert judge_all(judge, signals(3), cache)["u3"].text == "samples3"
    assert judge.calls == 0

    cache.write_text(line + line.replace("samples3", "samples4"))
    with pytest.raises(ValueError, match="heard otherwise .*; remove .*judge.jsonl"):
        judge_all(judge, signals(3), cache)


def test_a_repeated_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'u3' is judged twice in one call"):
        judge_all(CountingJudge(), signals(3, 3), tmp_path / "judge.jsonl")


def test_audio_that_is_not_finite_is_named(tmp_path):
    bad = np.array([0.0, np.nan], dtype=np.float32)
    with pytest.raises(ValueError, match="audio of 'u' has samples"):
        judge_all(CountingJudge(), [("u", bad)], tmp_path / "judge.jsonl")


def test_words_of_another_form_are_refused(tmp_path):
    cache = tmp_path / "judge.jsonl"
    row = {"key": "u", "audio": "0", "judge": "j", "text": "a", "words": [["a", 1]]}
    cache.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="judge.jsonl:1: words must be a list"):
        JudgeCache(cache)


def test_the_hash_sees_every_sample_and_no_layout():
    audio = np.arange(8, dtype=np.float32)

    assert audio_hash(audio) == audio_hash(np.arange(16, dtype=np.float64)[:8])
    assert audio_hash(audio) != audio_hash(audio[:-1])
    assert audio_hash(np.repeat(audio, 2)[::2]) == audio_hash(audio)


def test_a_loop_is_bounded_by_the_length_of_the_signal():
    assert token_bound(0) == 20
    assert token_bound(16000 * 2) == 60
    assert token_bound(16000 * 60) == 220


class Looping:
    """A recogniser whose greedy decoding, or whose beam, repeats itself."""

    def __init__(self, *ratios):
        self.ratios, self.beams = list(ratios), []

    def transcribe(self, audio, *, beam_size, **options):
        self.beams.append(beam_size)
        ratio = self.ratios[len(self.beams) - 1]
        word = SimpleNamespace(word=f" beam{beam_size}", start=0.0, end=0.5)
        calm = SimpleNamespace(words=None, compression_ratio=1.0)
        return (
            iter([calm, SimpleNamespace(words=[word], compression_ratio=ratio)]),
            None,
        )


@pytest.mark.parametrize(
    ("ratios", "beams", "text"),
    [
        ((2.4,), [1], "beam1"),
        ((19.3, 1.2), [1, 5], "beam5"),
        ((2.5, 8.0), [1, 5], "beam1"),
        ((8.0, 2.6), [1, 5], "beam5"),
    ],
)
def test_a_judge_that_repeats_itself_listens_again(ratios, beams, text):
    """A hundred errors of one utterance decided whether units say anything."""
    judge = WhisperJudge.__new__(WhisperJudge)
    judge.model, judge.options = Looping(*ratios), JudgeOptions()
    judge.suppressed = [-1]

    heard = judge.transcribe(np.ones(16000, np.float32))

    assert judge.model.beams == beams and heard.text == text


def test_digits_are_forbidden_and_special_tokens_are_not():
    vocabulary = {"a": 0, "\u0120200": 1, "<|0.02|>": 2, "7th": 3, "\u0120b": 4}

    assert digit_tokens(vocabulary) == [1, 3]


@pytest.fixture(scope="module")
def judge_weights():
    """Folder of the real weights."""
    pytest.importorskip("faster_whisper")
    weights = pytest.importorskip("espnet_taste.weights")
    try:
        return weights.resolve(DEFAULT_JUDGE)
    except (OSError, RuntimeError, ValueError) as error:
        pytest.skip(f"no weights of {DEFAULT_JUDGE}: {str(error).splitlines()[0]}")


@pytest.mark.weights
def test_the_real_judge_hears_words_and_their_times(judge_weights):
    if not DATA.exists():
        pytest.skip(f"no speech in {DATA}")
    key, text = (DATA / "text").read_text().splitlines()[0].split(maxsplit=1)
    audio, rate = soundfile.read(DATA / "flac" / f"{key}.flac", dtype="float32")
    judge = WhisperJudge(judge_weights, "base", JudgeOptions(), num_threads=1)

    heard = judge.transcribe(audio)
    again = judge.transcribe(audio)

    assert rate == 16000
    assert heard == again
    assert judge.transcribe(np.zeros(0, dtype=np.float32)) == Transcript("", ())
    common = set(text.lower().split()) & set(heard.text.lower().split())
    assert len(common) >= len(set(text.split())) / 2
    assert not any(char.isdigit() for char in heard.text)
    starts = [word.start_s for word in heard.words]
    assert starts == sorted(starts)
    assert 0 <= starts[0] < heard.words[-1].end_s <= len(audio) / rate + 1
