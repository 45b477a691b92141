"""Preprocessing of one utterance: tokens, words, units; idempotent and checked."""

import numpy as np
import pytest

from espnet_taste.data.preprocessor import SpokenLMPreprocessor, TokenizerPreprocessor


def encode(text):
    """One token a character, so that counts are easy to see."""
    return [ord(char) for char in text]


def tokenizer_data(**change):
    data = {
        "text": "ab c",
        "units": np.array([3.0, 1.0, 2.0], np.float32),
        "word_times": np.array([[0.0, 0.02], [0.04, 0.06]]),
        "spembs": np.zeros(2, np.float32),
    }
    return {**data, **change}


def test_words_tokens_and_units_of_an_utterance():
    out = TokenizerPreprocessor(encode, 50)("u", tokenizer_data())

    assert out["asr_tokens"].tolist() == encode(" ab c")
    assert out["asr_words"].tolist() == [0, 0, 0, 1, 1]
    assert out["units"].tolist() == [3, 1, 2] and out["units"].dtype == np.int64
    assert out["word_bounds"].tolist() == [0, 2, 3]
    first, second = [0.0, 0.02], [0.04, 0.06]
    expected = np.float32([first, first, first, second, second])
    np.testing.assert_array_equal(out["token_times"], expected)
    assert "text" not in out and "word_times" not in out


def test_applying_it_twice_changes_nothing():
    """ESPnet's streaming reader does."""
    process = TokenizerPreprocessor(encode, 50)
    once = process("u", tokenizer_data())
    twice = process("u", once)

    assert once.keys() == twice.keys()
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def test_the_input_is_left_as_it_was():
    data = tokenizer_data()
    TokenizerPreprocessor(encode, 50)("u", data)

    assert data.keys() == tokenizer_data().keys()


def test_words_without_times_are_named():
    data = tokenizer_data(word_times=np.zeros((3, 2)))

    with pytest.raises(ValueError, match="'u' has 2 words in text but 3 in word_times"):
        TokenizerPreprocessor(encode, 50)("u", data)


def test_codes_of_the_spoken_lm():
    codes = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    process = SpokenLMPreprocessor(encode)

    out = process("u", {"text": "ab c", "codes": codes})

    assert out["codes"].tolist() == [[1, 2], [3, 4]]
    assert out["llm_words"].tolist() == [0, 0, 0, 1, 1]
    assert process("u", out)["llm_tokens"].tolist() == out["llm_tokens"].tolist()


def test_words_without_codes_are_named():
    with pytest.raises(ValueError, match="'u' has 2 words in text but 1 rows of codes"):
        SpokenLMPreprocessor(encode)("u", {"text": "a b", "codes": np.zeros((1, 4))})
