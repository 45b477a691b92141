"""The report of an edit: what is measured, what is not, and how it is told."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_taste import noise, tiny_tokenizer
from tiny_whisper import randomise, tiny_config
from transformers import WhisperForConditionalGeneration

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.transcripts import WhisperTranscriber
from espnet_taste.align.whisper_dtw import WhisperAligner
from espnet_taste.pipeline.edit_report import harvest, report_edit
from espnet_taste.pipeline.editing import Edit, repeat_word
from espnet_taste.pipeline.listening import StateListener
from espnet_taste.pipeline.speech import Speech
from espnet_taste.pipeline.tokens import TasteTokens

RATE = 16000


def tokens_of(text):
    words = tuple(text.split())
    number = np.arange(len(words))
    rows = number[:, None].repeat(2, 1)
    return TasteTokens(words, np.ones(2, np.float32), number, number, codes=rows)


def listening(answers):
    """Return a tokenizer that hears what it is told, signal by signal."""
    waiting = iter(answers)

    def hear_words(wave, words):
        answer = next(waiting)
        if isinstance(answer, Exception):
            raise answer
        edges, transcript = answer
        return np.stack([edges[:-1], edges[1:]], axis=1), transcript

    return SimpleNamespace(encoder=SimpleNamespace(hear_words=hear_words))


def edit_of(text, changed=(1,)):
    tokens = tokens_of(text)
    return Edit(tokens, changed, tuple(range(len(tokens))), ("no promise",))


def pitch_of(hertz, voiced_s=9.0):
    """Return a tracker that finds one pitch, up to a time."""
    frames_s = np.arange(0, 2, 0.01)

    def track(wave):
        return np.where(frames_s < voiced_s, hertz * wave[0], 0.0), frames_s

    return track


BEFORE, AFTER = np.full(RATE, 0.5, np.float32), np.full(RATE, 1.0, np.float32)


def test_durations_and_pitch_of_words_before_and_after():
    told = listening(
        [
            (np.array([0.0, 0.2, 0.5, 1.0]), "Red, blue green"),
            (np.array([0.0, 0.2, 0.8, 1.2]), "red white green!"),
        ]
    )

    report = report_edit(
        tokens_of("red blue green"),
        edit_of("red white green"),
        BEFORE,
        AFTER,
        told,
        pitch=pitch_of(200.0),
    )

    red, white, green = report.words
    assert [word.is_edited for word in report.words] == [False, True, False]
    assert (white.before.word, white.after.word) == ("blue", "white")
    assert white.duration_change_s == pytest.approx(0.3)
    assert green.duration_change_s == pytest.approx(-0.1)
    assert (red.before.f0_hz, red.after.f0_hz) == (100.0, 200.0)
    assert red.f0_change_semitones == pytest.approx(12.0)
    summary = report.summary()
    assert summary["others"]["words"] == summary["others"]["with_f0"] == 2
    assert summary["others"]["duration_change_s"] == pytest.approx(0.05)
    assert summary["edited"]["duration_change_s"] == pytest.approx(0.3)


def test_words_that_nobody_hears_are_measured_but_not_counted():
    edges = np.array([0.0, 0.2, 0.5, 1.0])
    told = listening([(edges, "red green"), (edges, "mumble green")])

    report = report_edit(
        tokens_of("red blue green"), edit_of("red blue green"), BEFORE, AFTER, told
    )

    assert [w.before.is_heard for w in report.words] == [True, False, True]
    assert [w.after.is_heard for w in report.words] == [False, False, True]
    assert report.words[1].before.duration_s == pytest.approx(0.3)
    assert report.words[1].duration_change_s is None
    summary = report.summary()
    assert summary["edited"]["with_duration"] == 0
    assert summary["edited"]["duration_change_s"] is None
    assert summary["others"]["with_duration"] == 1


@pytest.mark.parametrize(
    ("text", "transcript", "heard"),
    [
        ("\u4f60 \u597d", "\u4f60\u597d\u3002", [True, True]),
        # Two words that differ in a vowel, which is a mark in this script.
        ("\u0915\u093e ab", "\u0915\u0940 ab", [False, True]),
        ("caf\u00e9 DON\u2019T", "cafe\u0301 don't", [True, True]),
    ],
)
def test_words_of_any_script_are_heard(text, transcript, heard):
    """Nothing was heard of scripts without blanks, and vowels did not count."""
    told = listening([(np.array([0.0, 0.5, 1.0]), transcript)] * 2)

    report = report_edit(tokens_of(text), edit_of(text), BEFORE, AFTER, told)

    assert [word.after.is_heard for word in report.words] == heard


def test_words_without_a_voiced_frame_have_no_pitch():
    edges = np.array([0.0, 0.5, 1.0])
    told = listening([(edges, "a b"), (edges, "a b")])

    report = report_edit(
        tokens_of("a b"), edit_of("a b"), BEFORE, AFTER, told, pitch=pitch_of(9.0, 0.4)
    )

    assert report.words[0].before.f0_hz == 4.5
    assert report.words[1].before.f0_hz is None
    assert report.words[1].f0_change_semitones is None


def test_words_are_compared_with_the_words_that_they_were():
    tokens = tokens_of("a b c")
    told = listening(
        [
            (np.array([0.0, 0.1, 0.3, 0.6]), "a b c"),
            (np.array([0.0, 0.1, 0.3, 0.6, 1.0]), "a b b c"),
        ]
    )

    report = report_edit(tokens, repeat_word(tokens, 1, 2), BEFORE, AFTER, told)

    assert [w.before.word for w in report.words] == ["a", "b", "b", "c"]
    assert report.words[3].duration_change_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("after", "answer", "message"),
    [
        (np.zeros(0, np.float32), None, "no samples in the audio after the edit"),
        (AFTER, AlignmentError("not_aligned", "a maze"), "a maze"),
    ],
)
def test_a_signal_without_words_is_a_result(after, answer, message):
    told = listening([(np.array([0.0, 0.5, 1.0]), "a b"), answer])

    report = report_edit(tokens_of("a b"), edit_of("a b"), BEFORE, after, told)

    assert report.words[0].before.duration_s == 0.5
    assert report.words[0].after.duration_s is None
    assert "after the edit" in report.notes[0] and message in report.notes[0]


def test_the_table_and_its_json():
    told = listening(
        [(np.array([0, 0.5, 1.0]), "a b"), (np.array([0, 0.5, 1.25]), "a b")]
    )
    speech = Speech(np.ones(1000, np.float32), 1000, {})

    report = report_edit(tokens_of("a b"), edit_of("a c"), speech, speech, told)
    facts = json.loads(report.to_json())
    lines = report.to_text().splitlines()

    assert facts["words"][1]["after"]["duration_s"] == 0.75
    assert facts["caveats"] == ["no promise"]
    assert facts["summary"]["edited"] == report.summary()["edited"]
    assert "b > c" in lines[2] and lines[2].startswith("*") and "0.75 s" in lines[2]
    assert lines[-1] == "Pitch was not measured."


def test_the_tokenizers_own_whisper_listens():
    config = tiny_config(
        attn_implementation="eager", decoder_start_token_id=90, eos_token_id=1
    )
    whisper = randomise(WhisperForConditionalGeneration(config), seed=3).eval()
    whisper.generation_config.max_length = 8

    class Letters:
        def encode(self, text, add_special_tokens=False, split_special_tokens=False):
            return [10 + ord(letter) % 60 for letter in text.strip()]

        def batch_decode(self, ids, skip_special_tokens=True):
            return ["heard this" for _ in ids]

        def convert_tokens_to_ids(self, name):
            return 91

    listener = StateListener.__new__(StateListener)
    parts = whisper, Letters(), None, "en"
    listener.transcriber = WhisperTranscriber.from_loaded(*parts)
    listener.aligner = WhisperAligner.from_loaded(*parts)
    tokenizer = tiny_tokenizer()
    tokenizer.encoder.listener = listener

    times, transcript = tokenizer.encoder.hear_words(noise(12000, 1), ["a", "bc"])

    assert times.shape == (2, 2) and transcript == "heard this"
    assert 0 <= times[0, 0] < times[1, 1] <= 0.75 + 1e-6
    with pytest.raises(AlignmentError, match="31.00 s, over 30 s"):
        tokenizer.encoder.hear_words(np.zeros(31 * RATE, np.float32), ["a"])


def test_harvest_finds_the_pitch_of_a_voice():
    pytest.importorskip("pyworld")
    time = np.arange(RATE) / RATE
    wave = sum(np.sin(2 * np.pi * 150 * n * time) / n for n in range(1, 9))

    f0_hz, frames_s = harvest((0.1 * wave).astype(np.float32))

    middle = f0_hz[(frames_s > 0.2) & (frames_s < 0.8)]
    assert np.median(middle) == pytest.approx(150, rel=0.01)


def test_pitch_without_pyworld_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyworld", None)

    with pytest.raises(ModuleNotFoundError, match=r"espnet-taste\[eval\]"):
        harvest(BEFORE)
