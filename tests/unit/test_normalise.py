"""The text normaliser: its stated rules, one by one."""

import pytest

from espnet_taste.eval.normalise import NORMALISER, normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("The DOG, barked!", "the dog barked", id="case and punctuation"),
        pytest.param("don\u2019t stop \u2018til", "don't stop til", id="apostrophes"),
        pytest.param("the dogs' 'tis", "the dogs tis", id="outer apostrophes"),
        pytest.param("well-known\u2014fact", "well known fact", id="hyphens"),
        pytest.param("yes [laughter] no <unk>", "yes no", id="marks"),
        pytest.param("one (two) three", "one two three", id="round brackets"),
        pytest.param("3 apples, 1,000", "3 apples 1 000", id="digits stay"),
        pytest.param("\uff21\uff22\uff23 Stra\u00dfe", "abc strasse", id="NFKC, fold"),
        pytest.param("e\u0301tude", "\u00e9tude", id="composed"),
        pytest.param("\u0939\u093f\u0928\u094d\u0926\u0940\u0964", "\u0939\u093f\u0928"
                     "\u094d\u0926\u0940", id="combining marks stay"),
        pytest.param("\u65e5\u672c\u8a9e\u3001\u3067\u3059\u3002", "\u65e5\u672c\u8a9e "
                     "\u3067\u3059", id="no spaces invented inside"),
        pytest.param(" ... ", "", id="nothing speakable"),
        pytest.param("a\tb\u00a0c\n", "a b c", id="white space"),
    ],
)  # fmt: skip
def test_rule(text, expected):
    assert normalise(text) == expected


def test_an_apostrophe_at_the_start_has_nothing_before_it():
    """A slice of position -1 would read the last character instead."""
    assert normalise("'a") == "a"


def test_the_name_carries_a_version():
    assert NORMALISER == "basic-1"
