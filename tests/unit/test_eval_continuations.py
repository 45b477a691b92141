"""Scores of continuations: repetitions by hand, pooling, intervals."""

import math

import pytest

from espnet_taste.eval.continuations import (
    Heard,
    behind_prompt,
    item_rows,
    repeated_ngrams,
    summarise,
)


def heard(nats=10.0, num_tokens=5, text="a b a b", order=2):
    words = text.split()
    repeated, total = repeated_ngrams(words, order)
    return Heard(text, nats, num_tokens, len(words), total, repeated)


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("a b a b", 2, (2, 3)),  # "a b" twice, "b a" once
        ("a a a", 2, (2, 2)),
        ("a b c d", 2, (0, 3)),
        ("a b a", 1, (2, 3)),
        ("a", 2, (0, 0)),
        ("", 1, (0, 0)),
    ],
)
def test_repetitions(text, order, expected):
    assert repeated_ngrams(text.split(), order) == expected


def test_an_order_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        repeated_ngrams(["a"], 0)


def test_counts_are_pooled_and_divided_once():
    items = {
        "u": heard(10.0, 5, "a b a b"),
        "v": heard(3.0, 1, "c"),
        "w": heard(0.0, 0, ""),
    }

    found = summarise(items)

    assert found["gen_ppl"]["value"] == pytest.approx(math.exp(13 / 6))
    assert found["auto_bleu"]["value"] == pytest.approx(2 / 3)
    assert found["words"]["value"] == pytest.approx(5 / 3)
    assert (found["num_items"], found["num_empty"]) == (3, 1)


def test_intervals_hold_the_value():
    items = {str(n): heard(float(n), 1 + n % 3, "a b " * (n % 4 + 1)) for n in range(9)}

    found = summarise(items)

    for name in ("gen_ppl", "auto_bleu", "words"):
        row = found[name]
        assert row["low"] < row["value"] < row["high"], name


def test_without_an_ngram_there_is_no_auto_bleu():
    found = summarise({"u": heard(text="a"), "v": heard(text="b")})

    assert found["auto_bleu"] == {"value": None, "low": None, "high": None}


def test_nothing_heard_is_an_error():
    with pytest.raises(ValueError, match="no word was heard in 2 continuations"):
        summarise({key: heard(0.0, 0, "") for key in "uv"})


def test_items_are_written_by_id():
    rows = item_rows({"v": heard(), "u": heard(text="x")})

    assert [row["key"] for row in rows] == ["u", "v"]
    assert rows[0]["text"] == "x" and rows[1]["num_repeated"] == 2


@pytest.mark.parametrize(
    ("heard", "prompt", "expected"),
    [
        ("Go on, two three.", "go on", "two three."),
        ("go home two three", "go on", "two three"),
        ("go on", "go on", ""),
        ("go", "go on", ""),
        ("oh go on two", "go on", "two"),
        ("go two three", "go on", "three"),
        ("", "go on", ""),
        ("two three", "", "two three"),
        ("a well-known - fact here", "A well known", "fact here"),
    ],
)
def test_a_prompt_is_cut_off_what_was_heard(heard, prompt, expected):
    assert behind_prompt(heard, prompt) == expected
