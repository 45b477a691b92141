"""What the tokenizer object refuses, in one line that names the item."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.data.audio import AudioError

WAVE = noise(8000)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def tokens(tokenizer):
    return tokenizer.encode(WAVE, "one two", word_times=False)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0), "empty: no samples in recording 1"),
        (np.zeros((1, 1, 9)), "unreadable: recording 1 has shape (1, 1, 9) and"),
        (np.full(9, np.nan), "nan: recording 1: 9 of 9 samples are not finite"),
        ("no.wav", "unreadable: recording 1: no such file: no.wav"),
        (np.zeros(9), "silent: recording 1 is silent, every sample is 0; leave it out"),
    ],
)
def test_a_recording_is_named_once(tokenizer, audio, message):
    with pytest.raises(AudioError) as caught:
        tokenizer.encode([WAVE, audio], ["a", "b"])

    assert str(caught.value).startswith(message)
    assert str(caught.value).count("recording 1") == 1


@pytest.mark.parametrize("size", [0, -1])
def test_batches_of_nothing_are_refused(tokenizer, tokens, size):
    """Batches of -1 were none at all: the results were [None] and []."""
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {size}"):
        tokenizer.encode([WAVE], ["a"], batch_size=size)
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {size}"):
        tokenizer.decode([tokens], batch_size=size)
