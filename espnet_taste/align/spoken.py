"""From written to spoken: the words to align, and English words for numbers.

``attach_punctuation`` decides what the words of an utterance are; ``spoken_pieces``
gives the dictionary words that an English speaker says for one of them ("1,500" is
said as four). Both are documented guesses: a number read another way is still aligned,
with less certain times inside it.
"""

import re
import unicodedata
from collections.abc import Sequence

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_SYMBOLS = {
    "&": " and ",
    "%": " percent ",
    "+": " plus ",
    "=": " equals ",
    "@": " at ",
    "\u2018": "'",
    "\u2019": "'",
    "\u00b4": "'",
    "`": "'",
}
_CURRENCIES = {"$": "dollars", "\u00a3": "pounds", "\u20ac": "euros"}
_LARGEST = 10**12  # longer numbers are read digit by digit


def attach_punctuation(words: Sequence[str]) -> tuple[list[str], int]:
    """Join words without any letter or digit to a neighbour.

    "Hello , world" has three written words of which two are spoken; a code and a time
    for "," would be made up. It is joined to the word before it ("Hello,"), at the
    start of a text to the word behind it.

    Args:
        words: Words of a transcript, as ``espnet_taste.words.split_words`` gives them.

    Returns:
        The words to align and how many were joined. No word is left if none of them
        has a letter or digit.
    """
    joined: list[str] = []
    lead = ""
    count = 0
    for word in words:
        if any(character.isalnum() for character in word):
            joined.append(lead + word)
            lead = ""
            continue
        count += 1
        if joined:
            joined[-1] += word
        else:
            lead += word
    return joined, count


def spoken_pieces(word: str) -> list[str]:
    """Return the English words said for a written word.

    Args:
        word: One written word, any case, with punctuation.

    Returns:
        Pieces of the letters a-z and apostrophes; empty if there is none, as for a
        word in another script.
    """
    text = unicodedata.normalize("NFKD", word)
    text = "".join(c for c in text if not unicodedata.combining(c)).lower()
    for symbol, said in _SYMBOLS.items():
        text = text.replace(symbol, said)
    for symbol, said in _CURRENCIES.items():
        if symbol in text:
            text = f"{text.replace(symbol, '')} {said}"
    text = re.sub(r"\d{1,3}(?:,\d{3}){1,3}(?!\d)", _say_count, text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th)\b", _say_ordinal, text)
    text = re.sub(r"(\d+)\.(\d+)", _say_decimal, text)
    text = re.sub(r"\d+", lambda match: f" {_say_number(match[0])} ", text)
    pieces = (piece.strip("'") for piece in re.findall(r"[a-z']+", text))
    return [piece for piece in pieces if piece]


def _say_number(digits: str) -> str:
    value = int(digits)
    if digits.startswith("0") or value >= _LARGEST:
        return " ".join(_ONES[int(digit)] for digit in digits)
    # Four digits are more often a year than a count; counts tend to have a comma.
    if len(digits) == 4 and digits[1] != "0" and value < 2000:
        return f"{cardinal(value // 100)} {_year_end(value % 100)}"
    return cardinal(value)


def _say_count(match: re.Match) -> str:
    """Say a number with commas, which is never a year."""
    return f" {cardinal(int(match[0].replace(',', '')))} "


def _year_end(value: int) -> str:
    if value == 0:
        return "hundred"
    return f"oh {_ONES[value]}" if value < 10 else cardinal(value)


def _say_decimal(match: re.Match) -> str:
    digits = " ".join(_ONES[int(digit)] for digit in match[2])
    return f" {_say_number(match[1])} point {digits} "


def _say_ordinal(match: re.Match) -> str:
    *rest, last = cardinal(int(match[1][:12])).split()
    if last in IRREGULAR_ORDINALS:
        last = IRREGULAR_ORDINALS[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " " + " ".join([*rest, last]) + " "


def cardinal(value: int) -> str:
    """Spell a whole number, 0 <= value < 10**12."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        tens = _TENS[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} {_ONES[value % 10]}"
    for size, name in _SCALES:
        if value >= size:
            head = f"{cardinal(value // size)} {name}"
            return head if value % size == 0 else f"{head} {cardinal(value % size)}"
    raise ValueError(f"expected a number from 0 on, got {value}")
