"""What the tokenizer object refuses, in one line that names the item."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_taste import SPEAKER_DIM, noise, tiny_tokenizer

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


@pytest.mark.parametrize("thing", ["words", 3, None, [None], ["a.st"], np.ones((2, 2))])
def test_only_tokens_are_decoded(tokenizer, thing):
    with pytest.raises(TypeError, match="expected TasteTokens or a list of them, got"):
        tokenizer.decode(thing)


@pytest.mark.parametrize(
    ("speaker", "shape"),
    [
        (np.ones(SPEAKER_DIM + 1, np.float32), r"\(5,\)"),
        (np.ones((1, SPEAKER_DIM), np.float32), r"\(1, 4\)"),
        (np.full(SPEAKER_DIM, np.nan, np.float32), r"\(4,\)"),
    ],
)
def test_a_voice_that_is_none_is_refused(tokenizer, tokens, speaker, shape):
    """NaN gave audio of NaN."""
    message = f"'one two': a speaker embedding of shape {shape}, expected 4 finite"
    with pytest.raises(ValueError, match=message):
        tokenizer.decode([tokens, replace(tokens, speaker=speaker)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"asr_tokens": 1000}, "the text has token 1000, this unit LM knows 0..99"),
        ({"codes": None, "embeds": np.ones((2, 3), np.float32)}, "of 3 values, .* 16"),
    ],
)
def test_text_and_embeddings_of_others_are_refused(tokenizer, tokens, changes, message):
    if "asr_tokens" in changes:
        changes = {"asr_tokens": np.full_like(tokens.asr_tokens, changes["asr_tokens"])}
    with pytest.raises(ValueError, match=message):
        tokenizer.decode(replace(tokens, **changes))


def test_integers_of_numpy_are_seeds(tokenizer, tokens):
    by_numpy = tokenizer.decode(tokens, seed=np.int64(3))

    assert np.array_equal(by_numpy.audio, tokenizer.decode(tokens, seed=3).audio)


def test_folders_for_speech_are_made(tokenizer, tokens, tmp_path):
    tokenizer.decode(tokens).save(tmp_path / "new" / "a.wav")

    assert (tmp_path / "new" / "a.wav").is_file()
