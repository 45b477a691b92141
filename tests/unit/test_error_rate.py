"""Error rates: jiwer's counts, pooled, with a stated policy for empty texts."""

import random

import jiwer
import pytest

from espnet_taste.eval.error_rate import (
    EditCounts,
    count_char_errors,
    count_word_errors,
    error_items,
    pool,
)
from espnet_taste.eval.normalise import normalise

WORDS = ["the", "cat", "sat", "on", "a", "mat"]


def random_texts(number, seed=0):
    generator = random.Random(seed)
    return [
        " ".join(generator.choices(WORDS, k=generator.randint(1, 9)))
        for _ in range(number)
    ]


def test_matches_jiwer():
    references, hypotheses = random_texts(50), random_texts(50, seed=1)

    words = pool(map(count_word_errors, references, hypotheses))
    chars = pool(map(count_char_errors, references, hypotheses))

    assert words.rate == pytest.approx(jiwer.wer(references, hypotheses))
    assert chars.rate == pytest.approx(jiwer.cer(references, hypotheses))


def test_counts_by_hand():
    counts = count_word_errors("a b c d", "a x c d e f")

    assert (counts.hits, counts.substitutions) == (3, 1)
    assert (counts.deletions, counts.insertions) == (0, 2)
    assert counts.reference_length == 4
    assert counts.rate == pytest.approx(3 / 4)


def test_rates_are_pooled_not_averaged():
    items = [count_word_errors("a", "b"), count_word_errors("a b c d e", "a b c d e")]

    assert pool(items).rate == pytest.approx(1 / 6)


def test_an_empty_hypothesis_is_all_deletions():
    counts = count_word_errors("a b", "")

    assert (counts.deletions, counts.errors, counts.rate) == (2, 2, 1.0)


def test_an_empty_reference_adds_insertions_and_no_length():
    counts = count_word_errors("", "a b")

    assert (counts.insertions, counts.reference_length) == (2, 0)
    assert counts.capped_errors == 0
    assert (counts + count_word_errors("a b", "a b")).rate == 1.0


def test_a_rate_over_no_reference_is_refused():
    with pytest.raises(ValueError, match="empty reference"):
        EditCounts(insertions=3).rate  # noqa: B018


def test_a_looping_judge_is_capped_at_the_reference_length():
    loop = count_word_errors("a b", " ".join(["x"] * 50))
    good = count_word_errors("a b c d e f g h", "a b c d e f g h")

    assert (loop + good).rate == pytest.approx(5.0)
    assert (loop + good).capped_rate == pytest.approx(2 / 10)
    assert (good + loop) == (loop + good)


def test_items_are_normalised_counts():
    items = error_items({"u": "The CAT, sat."}, {"u": "the cat sat down"})

    assert items["u"]["words"] == 3
    assert items["u"]["word_errors"] == items["u"]["word_insertions"] == 1
    assert items["u"]["chars"] == len(normalise("The CAT, sat."))
    assert items["u"]["char_errors"] == len(" down")


def test_signs_are_words_however_a_recogniser_groups_them():
    items = error_items(
        {"u": "\u4f60\u597d\uff0c\u4e16\u754c"}, {"u": "\u4f60 \u597d \u4e16\u4eba"}
    )

    assert items["u"]["words"] == 4
    assert items["u"]["word_errors"] == items["u"]["word_substitutions"] == 1


def test_no_blank_counts_beside_a_sign():
    """Those between signs are ours: one in four wrong would be one in seven."""
    reference, heard = (
        "\u4f60\u597d\u4e16\u754c ok go",
        "\u4f60\u597d\u4e16\u4eba ok  go",
    )
    items = error_items({"u": reference}, {"u": heard})

    assert items["u"]["chars"] == 4 + len("ok go")
    assert items["u"]["char_errors"] == 1


@pytest.mark.parametrize(
    ("hypotheses", "message"),
    [
        ({"a": "x"}, r"no hypothesis for 1 utterances: \['b'\]"),
        ({"a": "x", "b": "", "c": "y"}, r"no reference for 1 utterances: \['c'\]"),
    ],
)
def test_a_missing_side_is_an_error(hypotheses, message):
    with pytest.raises(ValueError, match=message):
        error_items({"a": "x", "b": "y"}, hypotheses)
