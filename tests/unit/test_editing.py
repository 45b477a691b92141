"""Edits of tokens: what changes, what must not, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_taste.pipeline.editing import (
    repeat_word,
    replace_text,
    swap_words,
    transplant,
)
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.words import encode_words


def letters(text):
    """Return a token a letter."""
    return [10 + ord(letter) % 60 for letter in text.strip()]


def make(text="one two three four", seed=0, **changes):
    """Return tokens of a text whose rows are random and all different."""
    draw = np.random.default_rng(seed)
    words = text.split()
    encoded = encode_words(words, letters)
    edges = np.linspace(0, len(words) / 2, len(words) + 1)
    parts = dict(
        words=tuple(words),
        speaker=np.full(3, seed, np.float32),
        asr_tokens=np.asarray(encoded.tokens, dtype=np.int64),
        asr_words=np.asarray(encoded.words, dtype=np.int64),
        codes=draw.integers(0, 10**6, (len(words), 4)),
        embeds=draw.normal(size=(len(words), 5)).astype(np.float32),
        times=np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32),
        span_s=(0.0, len(words) / 2),
        models={"tokenizer": "me"},
    )
    return TasteTokens(**parts | changes)


def rows_that_differ(before, after):
    """Return the words whose codes and embeddings changed; both or none."""
    codes = (before.codes != after.codes).any(1)
    assert np.array_equal(codes, (before.embeds != after.embeds).any(1))
    return tuple(np.flatnonzero(codes).tolist())


chosen_words = st.sets(st.integers(0, 3), min_size=1)


@given(words=chosen_words)
def test_a_swap_changes_the_chosen_words_only_and_undoes_itself(words):
    first, second = make(seed=1), make(seed=2)

    one, other = swap_words(first, second, words)
    back, forth = swap_words(one.tokens, other.tokens, words)

    for before, edit, source in ((first, one, second), (second, other, first)):
        assert rows_that_differ(before, edit.tokens) == edit.changed
        assert edit.changed == tuple(sorted(words))
        assert edit.tokens.times is None and edit.tokens.span_s == before.span_s
        assert edit.origins == (0, 1, 2, 3)
        rows = list(edit.changed)
        assert np.array_equal(edit.tokens.codes[rows], source.codes[rows])
        assert np.array_equal(edit.tokens.speaker, before.speaker)
    assert back.tokens == replace(first, times=None)
    assert forth.tokens == replace(second, times=None)
    assert first == make(seed=1), "the input was written to"


@given(word=st.integers(0, 3), source_word=st.integers(0, 1))
def test_a_transplant_changes_one_word(word, source_word):
    target, source = make(seed=1), make("red two", seed=2)

    edit = transplant(target, word, source, source_word)

    assert rows_that_differ(target, edit.tokens) == edit.changed == (word,)
    assert np.array_equal(edit.tokens.codes[word], source.codes[source_word])
    assert edit.tokens.words == target.words
    same = target.words[word] == source.words[source_word]
    assert any("were made for that word" in line for line in edit.caveats) is not same


def test_embeddings_of_one_side_only_are_left_to_the_codes():
    with_both, bare = make(seed=1), make(seed=2, embeds=None)

    for target, source in ((with_both, bare), (bare, with_both)):
        edit = transplant(target, 0, source, 0)
        assert edit.tokens.embeds is None
        assert np.array_equal(edit.tokens.codes[0], source.codes[0])


def test_tokens_without_codes_exchange_embeddings():
    first, second = make(seed=1, codes=None), make(seed=2, codes=None)

    one, _ = swap_words(first, second, [2])

    assert np.array_equal(one.tokens.embeds[2], second.embeds[2])
    assert np.array_equal(one.tokens.embeds[:2], first.embeds[:2])


@pytest.mark.parametrize("word", range(4))
@pytest.mark.parametrize("text", ["a", "longer"])
def test_replaced_text_keeps_all_codes_and_all_other_tokens(word, text):
    tokens = make()

    edit = replace_text(tokens, word, text, letters)

    assert rows_that_differ(tokens, edit.tokens) == ()
    assert edit.changed == (word,) and edit.tokens.words[word] == text
    fresh = encode_words(edit.tokens.words, letters)
    assert edit.tokens.asr_tokens.tolist() == fresh.tokens
    assert edit.tokens.asr_words.tolist() == fresh.words
    assert f"made for '{tokens.words[word]}'" in edit.caveats[0]


@pytest.mark.parametrize("text", ["two words", " ", "日本"])
def test_a_word_is_replaced_by_one_word(text):
    with pytest.raises(ValueError, match="is [02] words; one row of codes"):
        replace_text(make(), 1, text, letters)


def test_a_repeated_word_is_said_again_with_its_row():
    tokens = make()

    edit = repeat_word(tokens, 1, 3)

    assert edit.tokens.text == "one two two two three four"
    assert edit.origins == (0, 1, 1, 1, 2, 3) and edit.changed == (1, 2, 3)
    assert np.array_equal(edit.tokens.codes, tokens.codes[list(edit.origins)])
    fresh = encode_words(edit.tokens.words, letters)
    assert edit.tokens.asr_tokens.tolist() == fresh.tokens
    assert edit.tokens.asr_words.tolist() == fresh.words
    assert "nothing is said more slowly" in edit.caveats[0]
    with pytest.raises(ValueError, match="2 times or more, got 1"):
        repeat_word(tokens, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one too three", "from word 1 on: 'two' and 'too'"),
        ("one two", "ends at word 2, where the other has 'three'"),
        ("one two three four five", "ends at word 4, where the other has 'five'"),
    ],
)
def test_a_swap_names_the_first_word_that_differs(text, message):
    with pytest.raises(ValueError, match=message):
        swap_words(make(), make(text), [0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"tokenizer": "you"}}, "codes are of tokenizer you, expected me"),
        ({"codes": None}, "only one has codes"),
        ({"codes": np.zeros((4, 2), np.int64)}, "codes have 2 columns, expected 4"),
        ({"embeds": np.zeros((4, 9), np.float32)}, "embeds have 9 columns, expected 5"),
    ],
)
def test_rows_of_another_tokenizer_are_refused(changes, message):
    other = make(**changes)

    with pytest.raises(ValueError, match=message):
        swap_words(make(), other, [0])
    with pytest.raises(ValueError, match=message):
        transplant(make(), 0, other, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no word is chosen"),
        ([1, 4], "no word 4 in 'one two three four', whose words are 0..3"),
        ([-1], "no word -1 in"),
    ],
)
def test_words_that_are_not_there_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        swap_words(make(), make(), words)


def test_part_of_a_word_is_no_word():
    with pytest.raises(TypeError):
        swap_words(make(), make(), [1.5])
