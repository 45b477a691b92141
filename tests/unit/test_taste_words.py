"""The tokenizer object: which words a text has, and words that arrive one by one."""

import numpy as np
import pytest
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.align.transcripts import FULL_S
from espnet_taste.pipeline import encoding
from espnet_taste.pipeline.speech import Speech
from espnet_taste.pipeline.stretches import join_stretches, stretches

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


def test_long_tokens_are_spoken_in_stretches():
    """One row of an hour took 20 GB, and no training has rows like it."""
    tokenizer = tiny_tokenizer()
    texts = ["a b c. d e f g h", "a b"]
    long, short = tokenizer.encode(WAVES[:2], texts, word_times=False)

    cut = stretches(long, 4)
    spoken = tokenizer.decode([long, short], words_at_once=4, batch_size=2)

    assert [part.text for part in cut] == ["a b c.", "d e f g", "h"]
    parts = [tokenizer.decode(part) for part in cut]
    assert np.array_equal(spoken[0].audio, np.concatenate([p.audio for p in parts]))
    assert spoken[0].facts["num_units"] == sum(p.facts["num_units"] for p in parts)
    assert spoken[0].facts["num_stretches"] == 3
    assert np.array_equal(spoken[1].audio, tokenizer.decode(short).audio)
    whole = tokenizer.decode(long, words_at_once=None)
    assert np.array_equal(whole.audio, tokenizer.decode(long).audio)
    with pytest.raises(ValueError, match="words_at_once must be at least 1, got 0"):
        tokenizer.decode(long, words_at_once=0)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, 150])
def test_joined_stretches_are_the_whole(most):
    tokens = tiny_tokenizer().encode(WAVES[0], 'a b. c d! e f g "h."', word_times=False)

    parts = stretches(tokens, most)

    assert sum(parts[1:], parts[0]) == tokens
    assert all(1 <= len(part) <= most for part in parts)


def test_what_stopped_a_stretch_is_told():
    def part(reason):
        return Speech(
            np.ones(2, np.float32), 100, {"stopped_by": reason, "num_units": 3}
        )

    (joined,) = join_stretches([part("end"), part("length"), part("end")], [3])

    assert joined.facts["stopped_by"] == "length" and len(joined.audio) == 6


def test_whisper_hears_a_window_that_is_full_of_speech_in_parts(monkeypatch):
    """Of 30.0 s it wrote one word to all, where it had 80 of 29.8 s."""
    tokenizer = tiny_tokenizer()
    states = tokenizer.encoder._states
    monkeypatch.setattr(
        tokenizer.encoder, "_states", lambda waves: states([w[:16000] for w in waves])
    )
    monkeypatch.setattr(
        tokenizer.encoder, "_transcribe", lambda states, waves: ["short"] * len(waves)
    )
    heard = []

    def hear_long(wave, hear):
        heard.append(len(wave))
        return ["in", "parts"], np.zeros((2, 2), np.float32)

    monkeypatch.setattr(encoding, "hear_long", hear_long)
    full = noise(round(FULL_S * 16000) + 1)
    waves, texts = [full, full[:-1], full], [None, None, "given"]

    found = tokenizer.encode(waves, texts, word_times=False)

    assert [row.text for row in found] == ["in parts", "short", "given"]
    assert heard == [len(full)]
    tokenizer.encoder.transcriber = object()  # not Whisper, or not this one
    assert tokenizer.encode(full, word_times=False).text == "short"
