"""The words of an utterance, and how they are said."""

import pytest

from espnet_taste.align.spoken import attach_punctuation, cardinal, spoken_pieces


@pytest.mark.parametrize(
    ("text", "words", "count"),
    [
        ("Hello , world !", ["Hello,", "world!"], 2),
        ("- so - it goes", ["-so-", "it", "goes"], 2),
        ("\" ' one", ["\"'one"], 2),
        ("... !", [], 2),
        ("don't stop-it 7", ["don't", "stop-it", "7"], 0),
        ("\u4f60\u597d \u3002", ["\u4f60\u597d\u3002"], 1),
    ],
)
def test_words_nobody_says_are_joined_to_a_neighbour(text, words, count):
    assert attach_punctuation(text.split()) == (words, count)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("Hello,", "hello"),
        ("DON\u2019T", "don't"),
        ("'tis", "tis"),
        ("ladies-year-drops", "ladies year drops"),
        ("caf\u00e9", "cafe"),
        ("R&D", "r and d"),
        ("50%", "fifty percent"),
        ("$1,500", "one thousand five hundred dollars"),
        ("3.14", "three point one four"),
        ("1st", "first"),
        ("22nd", "twenty second"),
        ("30th", "thirtieth"),
        ("1914", "nineteen fourteen"),
        ("1900", "nineteen hundred"),
        ("1805", "eighteen oh five"),
        ("2005", "two thousand five"),
        ("1066", "one thousand sixty six"),
        ("007", "zero zero seven"),
        ("0", "zero"),
        ("1920s", "nineteen twenty s"),
        ("mp3", "mp three"),
        ("123456789012345", "one two three four five six seven eight nine zero one two"
         " three four five"),
        ("1,000,000", "one million"),
        ("\u4f60\u597d", ""),
        ("\u2014", ""),
        ("''", ""),
    ],
)  # fmt: skip
def test_spoken_forms(word, said):
    assert " ".join(spoken_pieces(word)) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (80, "eighty"),
        (101, "one hundred one"),
        (12_345, "twelve thousand three hundred forty five"),
        (7_000_000_001, "seven billion one"),
    ],
)
def test_cardinals(value, said):
    assert cardinal(value) == said


def test_every_number_is_said_with_words_of_letters():
    for value in [*range(0, 3000, 7), *range(0, 10**12, 10**12 // 97)]:
        assert cardinal(value).replace(" ", "").isalpha()
        for form in (f"{value}", f"{value}th", f"{value:,}", f"{value}.5"):
            assert all(piece.isalpha() for piece in spoken_pieces(form))
