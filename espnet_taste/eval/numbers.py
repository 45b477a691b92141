"""Numbers as digits, however they were written or said; English, versioned by name.

An answer "4" is heard as "four", because the judge may write no digits, and "1969" as
"nineteen sixty nine". Both sides become digits rather than words: "four" would stand in
"twenty four", while 4 does not stand in 24. Rules, in order:

1. A comma between thousands goes, digits behind a decimal point are said one by one
   behind "point", "%" is "percent"; then ``normalise``.
2. A longest run of number words is one number: tens and units, hundreds (with or
   without "and", "a hundred"), thousands and above, digits before these too; the same
   ending in an ordinal is "21st".
3. Two numbers of which the first is 15 to 20 and the second 10 to 99, or "oh" and a
   unit, are a year: "nineteen oh five".

A change of any rule is a change of ``NUMBERS``.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from espnet_taste.align.spoken import IRREGULAR_ORDINALS
from espnet_taste.eval.normalise import normalise

NUMBERS = "digits-en-1"

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen "
        "fourteen fifteen sixteen seventeen eighteen nineteen".split()
    )
}
_TENS = {
    word: 10 * value
    for value, word in enumerate(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2
    )
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = {
    IRREGULAR_ORDINALS.get(
        word, word.removesuffix("y") + "ie" * word.endswith("y") + "th"
    ): n
    for word, n in {**_SMALL, **_TENS}.items()
    if n
}
_YEAR_STARTS = range(15, 21)  # 1500 to 2099; lower ones are rather two numbers
_ENDINGS = {1: "st", 2: "nd", 3: "rd"}


class _Found(NamedTuple):
    """A number that stands in a text."""

    value: int
    end: int  # index of the word behind it
    is_ordinal: bool = False
    is_said: bool = True  # in words


def with_digits(text: str) -> str:
    """Return the normalised words of a text with its numbers as digits."""
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\.(\d+)", _say_decimals, text).replace("%", " percent ")
    words = normalise(text).split()
    kept, index = [], 0
    while index < len(words):
        found = _number(words, index)
        if found is None:
            kept.append(words[index])
            index += 1
        else:
            kept.append(_written(found))
            index = found.end
    return " ".join(kept)


def _say_decimals(match: re.Match) -> str:
    return " point " + " ".join(match[1])


def _written(found: _Found) -> str:
    if not found.is_ordinal:
        return str(found.value)
    teen = found.value // 10 % 10 == 1
    return f"{found.value}{'th' if teen else _ENDINGS.get(found.value % 10, 'th')}"


def _word(words: Sequence[str], index: int) -> str:
    return words[index] if index < len(words) else ""


def _number(words: Sequence[str], index: int) -> _Found | None:
    """Return the longest number that begins at a word."""
    if words[index] == "a" and _word(words, index + 1) in ("hundred", *_SCALES):
        group: _Found | None = _hundreds(words, _Found(1, index + 1))
    else:
        group = _group(words, index)
    if group is None:
        return None
    total, limit = 0, max(_SCALES.values()) * 1000
    while not group.is_ordinal and (scale := _SCALES.get(_word(words, group.end))):
        if group.value == 0 or group.value * scale >= limit:
            break
        total += group.value * scale
        limit = scale
        group = _below(words, group.end + 1, limit)
    return group._replace(value=total + group.value)


def _below(words: Sequence[str], index: int, limit: int) -> _Found:
    """Return what follows a hundred or a thousand, 0 if that is no lower number."""
    start = index + (_word(words, index) == "and")
    following = _group(words, start) if limit > 100 else _below_hundred(words, start)
    if following is None or not 0 < following.value < limit or not following.is_said:
        return _Found(0, index)
    return following


def _group(words: Sequence[str], index: int) -> _Found | None:
    """Return a number below a thousand, or a year, that begins at a word."""
    first = _below_hundred(words, index)
    if first is None or first.is_ordinal or not first.value:
        return first
    if first.is_said and first.value in _YEAR_STARTS:
        if _word(words, first.end) in ("oh", "o"):
            unit = _SMALL.get(_word(words, first.end + 1), 0)
            if 0 < unit < 10:
                return _Found(100 * first.value + unit, first.end + 2)
        second = _below_hundred(words, first.end)
        if second and second.is_said and 10 <= second.value < 100:
            return second._replace(value=100 * first.value + second.value)
    return _hundreds(words, first)


def _hundreds(words: Sequence[str], first: _Found) -> _Found:
    """Go on from how many hundreds there are, if they are hundreds."""
    if _word(words, first.end) != "hundred" or first.value >= 100:
        return first
    rest = _below(words, first.end + 1, 100)
    return rest._replace(value=100 * first.value + rest.value)


def _below_hundred(words: Sequence[str], index: int) -> _Found | None:
    """Return a number below a hundred in words, or any in digits."""
    word = _word(words, index)
    if re.fullmatch(r"[1-9][0-9]*", word):
        return _Found(int(word), index + 1, is_said=False)
    if word in _TENS:
        unit = _word(words, index + 1)
        value = _SMALL.get(unit) or _ORDINALS.get(unit, 0)
        if 0 < value < 10:
            return _Found(_TENS[word] + value, index + 2, unit in _ORDINALS)
        return _Found(_TENS[word], index + 1)
    if word in _SMALL:
        return _Found(_SMALL[word], index + 1)
    if word in _ORDINALS:
        return _Found(_ORDINALS[word], index + 1, is_ordinal=True)
    return None
