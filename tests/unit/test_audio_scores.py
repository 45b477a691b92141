"""Free-running scores: nothing heard is a result, unreadable audio is not."""

import json
import math

import numpy as np
import pytest
import soundfile

from espnet_taste.eval.asr_judge import Transcript
from espnet_taste.eval.audio_scores import (
    AudioSet,
    Listener,
    score_original,
    score_outputs,
)
from espnet_taste.eval.duration import TimedWord

TEXTS = {"a": "one two", "b": "three four"}


class LevelJudge:
    """Reads the words from the first sample: a signal "says" what it was made for."""

    name = "level"

    def transcribe(self, audio):
        if not len(audio):
            return Transcript("", ())
        level = round(audio[0] * 10)
        said = {1: "one two", 2: "three four", 3: "three for", 4: "..."}[level]
        words = tuple(
            TimedWord(word, float(n), n + len(audio) / 32000)
            for n, word in enumerate(said.split())
        )
        return Transcript(said, words)


def embed(audio):
    return np.array([1.0, 10 * float(audio[0])])


def make_set(folder, **levels):
    """Write one constant signal per utterance; level None means silence."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, level in levels.items():
        samples = np.full(16000, (level or 0) / 10, dtype=np.float32)
        soundfile.write(folder / f"{key}.wav", samples, 16000, subtype="FLOAT")
    return AudioSet({key: str(folder / f"{key}.wav") for key in levels}, folder)


@pytest.fixture
def listener(tmp_path):
    caches = (tmp_path / "out.jsonl", tmp_path / "reference.jsonl")
    return Listener(LevelJudge(), *caches, embed)


def test_the_original_has_error_rates_only(tmp_path, listener):
    items, skipped = score_original(
        TEXTS, make_set(tmp_path / "org", a=1, b=3), listener
    )

    assert items["a"]["word_errors"] == 0
    assert items["b"]["word_errors"] == 1
    assert "similarity" not in items["a"]
    assert not any(skipped.values())


def test_an_empty_reference_adds_insertions_and_is_counted(tmp_path, listener):
    texts = {"a": "one two", "b": "..."}

    items, skipped = score_original(
        texts, make_set(tmp_path / "org", a=1, b=2), listener
    )

    assert (items["b"]["words"], items["b"]["word_insertions"]) == (0, 2)
    assert skipped["empty_reference (adds insertions only)"] == 1


def test_a_transcript_of_signs_alone_is_heard_as_nothing(tmp_path, listener):
    items, skipped = score_original(
        TEXTS, make_set(tmp_path / "org", a=1, b=4), listener
    )

    assert items["b"]["word_deletions"] == 2
    assert skipped["heard_as_nothing"] == 1


def test_outputs_are_compared_with_text_and_original(tmp_path, listener):
    original = make_set(tmp_path / "org", a=1, b=2)

    items, skipped = score_outputs(
        TEXTS, original, make_set(tmp_path / "out", a=1, b=3), listener
    )

    assert (items["b"]["words"], items["b"]["word_errors"]) == (2, 1)
    assert (items["b"]["reference_words"], items["b"]["matched_words"]) == (2, 1)
    assert items["a"]["similarity"] == pytest.approx(1.0)
    cosine = (1 + 2 * 3) / math.sqrt((1 + 2**2) * (1 + 3**2))  # of [1, 2] and [1, 3]
    assert items["b"]["similarity"] == pytest.approx(cosine)
    assert cosine < 1
    assert not any(skipped.values())


def test_the_originals_are_judged_once_for_all_systems(tmp_path, listener):
    original = make_set(tmp_path / "org", a=1, b=2)
    score_original(TEXTS, original, listener)

    score_outputs(TEXTS, original, make_set(tmp_path / "out", a=1, b=2), listener)

    lines = listener.reference_cache.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]
    assert listener.cache.exists()


def test_a_silent_output_is_all_deletions_and_counted(tmp_path, listener):
    original = make_set(tmp_path / "org", a=1, b=2)

    items, skipped = score_outputs(
        TEXTS, original, make_set(tmp_path / "out", a=1, b=None), listener
    )

    assert items["b"]["word_deletions"] == items["b"]["words"] == 2
    assert (items["b"]["similarity"], items["b"]["compared"]) == (0, 0)
    assert sorted(skipped.values()) == [0, 1, 1, 1]


def test_an_output_without_a_sample_is_all_deletions(tmp_path, listener):
    original = make_set(tmp_path / "org", a=1, b=2)
    outputs = make_set(tmp_path / "out", a=1, b=2)
    soundfile.write(tmp_path / "out" / "b.wav", np.zeros(0), 16000)

    items, _ = score_outputs(TEXTS, original, outputs, listener)

    assert items["b"]["word_deletions"] == 2


def test_a_missing_output_stops_the_run(tmp_path, listener):
    original = make_set(tmp_path / "org", a=1, b=2)
    with pytest.raises(ValueError, match=r"no audio for 1 of 2 utterances: \['b'\]"):
        score_outputs(TEXTS, original, make_set(tmp_path / "out", a=1), listener)


@pytest.mark.parametrize("damage", ["nan", "text", "gone"])
def test_unreadable_audio_stops_the_run(tmp_path, listener, damage):
    original = make_set(tmp_path / "org", a=1, b=2)
    outputs = make_set(tmp_path / "out", a=1, b=2)
    path = tmp_path / "out" / "b.wav"
    if damage == "nan":
        soundfile.write(path, np.array([0.1, np.nan]), 16000, subtype="FLOAT")
    elif damage == "text":
        path.write_text("this is no sound")
    else:
        path.unlink()
    with pytest.raises(ValueError, match="'b': (nan|unreadable)"):
        score_outputs(TEXTS, original, outputs, listener)
