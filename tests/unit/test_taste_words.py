"""The tokenizer object: which words a text has, and words that arrive one by one."""

import numpy as np
import pytest
from tiny_taste import noise, tiny_tokenizer

WAVES = [noise(12000, 1), noise(5000, 2)]


def test_scripts_without_blanks_have_a_word_a_sign():
    tokens = tiny_tokenizer().encode(WAVES[0], "日本 ok", word_times=False)

    assert tokens.words == ("日", "本", "ok")


def test_punctuation_between_blanks_is_no_word():
    """As in alignment, hence in training; it had a code of its own."""
    tokenizer = tiny_tokenizer()
    texts = ["« a ! - b »", "a ?"]

    first, second = tokenizer.encode(WAVES[:2], texts, word_times=False)

    assert first.words == ("«a!-", "b»") and second.words == ("a?",)
    assert len(first.codes) == 2
    with pytest.raises(ValueError, match="^recording 1: the transcript has no word"):
        tokenizer.encode(WAVES[:2], ["a", "... !"], word_times=False)
    tokenizer.encoder.joins_punctuation = False  # released models
    released = tokenizer.encode(WAVES[0], texts[0], word_times=False)
    assert released.words == tuple(texts[0].split())


def test_a_stream_speaks_as_words_arrive():
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES[0], "a b c d e", word_times=False)
    arrived = []

    def arriving():
        for word in range(len(tokens)):
            arrived.append(word)
            yield tokens[word]

    stream = tokenizer.stream(arriving(), words_at_once=2)
    first = next(stream)

    assert arrived == [0, 1]
    assert np.array_equal(first.audio, tokenizer.decode(tokens[:2]).audio)
    assert len(list(stream)) == 2
    whole = list(tokenizer.stream(tokens, words_at_once=2))
    assert np.array_equal(whole[0].audio, first.audio) and len(whole) == 3


def test_pieces_without_words_are_passed_over_in_a_stream():
    """One behind the last word was an error."""
    tokenizer = tiny_tokenizer()
    tokens = tokenizer.encode(WAVES[0], "a b", word_times=False)

    pieces = iter([tokens[:0], tokens, tokens[2:]])
    (speech,) = tokenizer.stream(pieces, words_at_once=2)

    assert np.array_equal(speech.audio, tokenizer.decode(tokens).audio)
    assert list(tokenizer.stream(tokens[:0])) == []
