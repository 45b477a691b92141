"""Guessed pronunciations: parts that the dictionary knows first, then the rules."""

import random

import pytest

from espnet_taste.align.letter_to_sound import guess_phones

KNOWN = {
    "cat": "K AE T",
    "dog": "D AO G",
    "bus": "B AH S",
    "house": "HH AW S",
    "bake": "B EY K",
    "run": "R AH N",
}
PHONES = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T "
    "TH UH UW V W Y Z ZH".split()
)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("cat's", "K AE T S"),
        ("dogs", "D AO G Z"),
        ("bus's", "B AH S IH Z"),
        ("doghouse", "D AO G HH AW S"),
        ("running", "R AH N IH NG"),
        ("baking", "B EY K IH NG"),
        ("knight", "N AY T"),
        ("phil", "F IH L"),
        ("hatt", "HH AE T"),
        ("vane", "V AE N"),
        ("bcd", "B IY S IY D IY"),
        ("x", "EH K S"),
        ("s", "EH S"),
    ],
)
def test_guesses(word, phones):
    assert guess_phones(word, KNOWN.get) == phones


def test_any_letters_give_phones_of_the_model():
    draw = random.Random(0)
    for _ in range(2000):
        word = "".join(
            draw.choices("abcdefghijklmnopqrstuvwxyz'", k=draw.randint(1, 9))
        )
        if word.strip("'"):
            phones = guess_phones(word, KNOWN.get).split()
            assert phones and set(phones) <= PHONES, word
