"""Limits on audio and transcripts: the value on the bound passes."""

import numpy as np
import pytest

from espnet_taste.data.audio import AudioError
from espnet_taste.data.checks import (
    Limits,
    TranscriptError,
    check_audio,
    check_transcript,
)

LIMITS = Limits(min_s=0.1, max_s=2.0, min_peak=0.25, max_words=3)


def noise(num_samples, peak=0.5):
    samples = np.zeros(num_samples, np.float32)
    samples[::2] = peak
    samples[1::2] = -peak
    return samples


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (noise(3), "too_short"),
        (noise(1599), "too_short"),
        (noise(1600), None),
        (noise(32000), None),
        (noise(32001), "too_long"),
        (noise(1600, peak=0.25), None),
        (noise(1600, peak=0.2), "silent"),
        (np.full(1600, 0.9, np.float32), "silent"),
    ],
)
def test_audio(samples, reason):
    if reason is None:
        check_audio(samples, 16000, LIMITS)
    else:
        with pytest.raises(AudioError) as caught:
            check_audio(samples, 16000, LIMITS)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "no_transcript"),
        ("", "no_transcript"),
        (" \u00a0 ", "no_transcript"),
        ("... - !", "no_speakable_word"),
        ("one", None),
        ("- \u4f60\u597d", None),
        ("7", None),
        ("a b c", None),
        ("a b c d", "too_many_words"),
        ("\u4f60\u597d\u4e16", None),
        ("\u4f60\u597d\u4e16\u754c", "too_many_words"),  # written without blanks
    ],
)
def test_transcripts(text, reason):
    if reason is None:
        check_transcript(text, LIMITS)
    else:
        with pytest.raises(TranscriptError) as caught:
            check_transcript(text, LIMITS)
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    "wrong",
    [{"min_s": -1}, {"min_s": 3, "max_s": 2}, {"min_peak": -1}, {"max_words": 0}],
)
def test_limits_that_nothing_satisfies_are_refused(wrong):
    with pytest.raises(ValueError):
        Limits(**wrong)
