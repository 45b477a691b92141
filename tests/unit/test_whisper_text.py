"""Whisper's prefix and the encoding of plain text."""

import pytest
from tokenizers import AddedToken, pre_tokenizers
from transformers import WhisperTokenizer

from espnet_taste.tokenizer.text import WhisperText
from espnet_taste.tokenizer.whisper import MULTILINGUAL_VOCAB_SIZE
from espnet_taste.weights import resolve

SPECIAL = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|notimestamps|>",
]


@pytest.fixture(scope="module")
def tokenizer():
    """A Whisper tokenizer that knows single bytes and the special tokens only."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(letters)}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def ids(tokenizer, *names):
    return [tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names]


def test_the_prefix_of_a_multilingual_model_names_the_language(tokenizer):
    text = WhisperText.from_tokenizer(tokenizer, MULTILINGUAL_VOCAB_SIZE, "de")
    assert text.prefix_ids == ids(
        tokenizer, "startoftranscript", "de", "transcribe", "notimestamps"
    )
    assert [text.eot_id] == ids(tokenizer, "endoftext")


def test_the_prefix_of_an_english_model_has_no_language(tokenizer):
    text = WhisperText.from_tokenizer(tokenizer, MULTILINGUAL_VOCAB_SIZE - 1)
    assert text.prefix_ids == ids(tokenizer, "startoftranscript", "notimestamps")
    assert text.vocab_size == MULTILINGUAL_VOCAB_SIZE - 1


def test_an_english_model_refuses_other_languages(tokenizer):
    with pytest.raises(ValueError, match="English-only, language 'de' needs"):
        WhisperText.from_tokenizer(tokenizer, 51864, "de")


def test_the_prefix_names_the_task(tokenizer):
    size = MULTILINGUAL_VOCAB_SIZE
    text = WhisperText.from_tokenizer(tokenizer, size, "de", "translate")
    assert text.prefix_ids == ids(
        tokenizer, "startoftranscript", "de", "translate", "notimestamps"
    )
    with pytest.raises(ValueError, match=r"no token <\|sing\|>"):
        WhisperText.from_tokenizer(tokenizer, size, "de", "sing")
    with pytest.raises(ValueError, match="English-only, task 'translate' needs"):
        WhisperText.from_tokenizer(tokenizer, 51864, task="translate")


def test_an_unknown_language_is_named(tokenizer):
    with pytest.raises(ValueError, match=r"no token <\|xx\|>"):
        WhisperText.from_tokenizer(tokenizer, MULTILINGUAL_VOCAB_SIZE, "xx")


def test_plain_text_comes_back_and_gets_no_special_token(tokenizer):
    text = WhisperText.from_tokenizer(tokenizer, 51864)
    tokens = text.encode(" hé!")
    assert len(tokens) == 5  # bytes
    assert text.decode(tokens) == " hé!"
    assert text.decode([*text.prefix_ids, *tokens, text.eot_id]) == " hé!"


def test_a_transcript_cannot_inject_special_tokens(tokenizer):
    text = WhisperText.from_tokenizer(tokenizer, 51864)
    name = "<|endoftext|>"
    assert len(text.encode(name)) == len(name)


@pytest.mark.weights
def test_tiny_en():
    name = "openai/whisper-tiny.en"
    try:
        resolve(name, offline=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs {name}: {error}")
    text = WhisperText(name)
    assert text.prefix_ids == [50257, 50362]
    assert text.eot_id == 50256
    assert text.vocab_size == 51864
    assert text.decode(text.encode(" Hello there.")) == " Hello there."
