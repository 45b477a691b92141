"""Words: the splitting rule, tokens per word, and what is refused."""

import pytest

from espnet_taste.words import (
    code_sources,
    encode_words,
    expand_word_rows,
    space_signs,
    split_words,
    starts_with_sign,
    word_spans,
)


def characters(text):
    """Encode every character but the leading blank by its code point."""
    return [ord(character) for character in text.strip()]


def test_words_are_split_at_any_whitespace():
    assert split_words("  one\ttwo\u00a0three \n") == ["one", "two", "three"]


def test_a_doubled_blank_leaves_an_empty_word_only_in_the_released_rule():
    assert split_words("one  two") == ["one", "two"]
    assert split_words("one  two", keep_empty=True) == ["one", "", "two"]


def test_blank_text_has_no_words():
    assert split_words("  ") == []


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("two  words, 3 e\u0301", "two words, 3 e\u0301"),
        ("日本、ok", "日 本、 ok"),
        ("用iPhone手机", "用 iPhone 手 机"),
        ("iPhone用", "iPhone 用"),
        ("有3个", "有 3 个"),
        ("二〇二四", "二 〇 二 四"),
        ("人々 アー", "人々 アー"),
        ("「好」。", "「 好」。"),
        ("ｶﾞｰ", "ｶﾞｰ"),
        ("ไทย ๆ", "ไ ท ยๆ"),
        ("กิน123บาท", "กิ น 123 บ า ท"),
        ("សួស្តី។", "សួ ស្ តី។"),
        ("မာ၊ မာ။", "မာ၊ မာ။"),
        ("བོད་སྐད།", "བོ ད་ སྐ ད།"),
        ("aーb", "aーb"),
        ("", ""),
    ],
)
def test_signs_of_scripts_without_blanks_are_words(text, spaced):
    """What stood behind a sign was part of it, and its punctuation was a word."""
    assert space_signs(text) == spaced
    assert space_signs(spaced) == spaced
    assert "".join(spaced.split()) == "".join(text.split())


@pytest.mark.parametrize("text", ["", "a世", "ー", "。", "។", "\u0e34", "々"])
def test_marks_and_punctuation_start_no_word(text):
    assert not starts_with_sign(text)


def test_every_word_gets_a_leading_blank():
    """Reference defect C23: in training the first word goes without."""
    seen = []

    def encode(text):
        seen.append(text)
        return [7, 8]

    result = encode_words(["a", "b"], encode)

    assert seen == [" a", " b"]
    assert result.tokens == [7, 8, 7, 8]
    assert result.words == [0, 0, 1, 1]


def test_a_word_without_token_is_named():
    with pytest.raises(ValueError, match=r"word 1 ''"):
        encode_words(["a", ""], characters)


def test_spans():
    assert word_spans([0, 0, 1, 2, 2]) == [(0, 2), (2, 3), (3, 5)]
    assert word_spans([]) == []


@pytest.mark.parametrize("words", [[1], [0, 2], [0, 1, 0], [-1]])
def test_gaps_in_word_indices_are_refused(words):
    with pytest.raises(ValueError, match="count up from 0 without gaps"):
        word_spans(words)


def test_codes_go_to_the_first_token_of_each_word():
    assert code_sources([0, 0, 1], [0, 1, 1, 1]) == [0, 2, -1, -1]


def test_different_numbers_of_words_are_refused():
    with pytest.raises(ValueError, match="cover 2 words, LLM tokens 1"):
        code_sources([0, 1], [0, 0])


def test_rows_are_repeated_on_the_tokens_of_their_word():
    assert expand_word_rows(["a", "b"], [0, 1, 1]) == ["a", "b", "b"]


def test_a_missing_row_is_refused():
    with pytest.raises(ValueError, match="2 words need as many rows, got 1"):
        expand_word_rows(["a"], [0, 1])
