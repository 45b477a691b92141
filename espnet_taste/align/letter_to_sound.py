"""Guess how an English word that no dictionary has is pronounced.

Names are what dictionaries lack most. First the word is taken apart into parts that
the dictionary has (possessive, plural, other endings, compounds); what is left is read
letter by letter with the longest matching rule. A guess is right often enough for
alignment, which only has to choose where a known word begins and ends.
"""

from collections.abc import Callable

# Spelling at any place, longest first when applied; phones of the CMU dictionary.
_RULES = {
    "tion": "SH AH N",
    "sion": "ZH AH N",
    "ture": "CH ER",
    "ough": "AO",
    "augh": "AO",
    "eigh": "EY",
    "igh": "AY",
    "tch": "CH",
    "dge": "JH",
    "sch": "SH",
    "que": "K",
    "eau": "OW",
    "ch": "CH",
    "sh": "SH",
    "th": "TH",
    "ph": "F",
    "gh": "G",
    "wh": "W",
    "ck": "K",
    "ng": "NG",
    "qu": "K W",
    "ai": "EY",
    "ay": "EY",
    "au": "AO",
    "aw": "AO",
    "ea": "IY",
    "ee": "IY",
    "ei": "AY",
    "ew": "UW",
    "ey": "IY",
    "ie": "IY",
    "oa": "OW",
    "oi": "OY",
    "oy": "OY",
    "oo": "UW",
    "ou": "AW",
    "ow": "OW",
    "ue": "UW",
    "ar": "AA R",
    "er": "ER",
    "ir": "ER",
    "or": "AO R",
    "ur": "ER",
    "ce": "S EH",
    "ci": "S IH",
    "cy": "S IY",
    "ge": "JH EH",
    "gi": "JH IH",
    "a": "AE",
    "b": "B",
    "c": "K",
    "d": "D",
    "e": "EH",
    "f": "F",
    "g": "G",
    "h": "HH",
    "i": "IH",
    "j": "JH",
    "k": "K",
    "l": "L",
    "m": "M",
    "n": "N",
    "o": "OW",
    "p": "P",
    "q": "K",
    "r": "R",
    "s": "S",
    "t": "T",
    "u": "AH",
    "v": "V",
    "w": "W",
    "x": "K S",
    "y": "IY",
    "z": "Z",
}
_LONGEST = max(map(len, _RULES))
_START = {"kn": "N", "wr": "R", "gn": "N", "ps": "S", "x": "Z", "y": "Y"}
_LETTERS = {
    **dict(zip("aeiou", ("EY", "IY", "AY", "OW", "Y UW"), strict=True)),
    **{"b": "B IY", "c": "S IY", "d": "D IY", "f": "EH F", "g": "JH IY"},
    **{"h": "EY CH", "j": "JH EY", "k": "K EY", "l": "EH L", "m": "EH M"},
    **{"n": "EH N", "p": "P IY", "q": "K Y UW", "r": "AA R", "s": "EH S"},
    **{"t": "T IY", "v": "V IY", "w": "D AH B AH L Y UW", "x": "EH K S"},
    **{"y": "W AY", "z": "Z IY"},
}
_ENDINGS = {"ing": "IH NG", "ly": "L IY", "ed": "D", "er": "ER", "ness": "N AH S"}
_HISSING = ("S", "Z", "SH", "ZH", "CH", "JH")
_VOICELESS = ("P", "T", "K", "F", "TH")


def guess_phones(word: str, lookup: Callable[[str], str | None]) -> str:
    """Guess the pronunciation of a word.

    Args:
        word: Letters a-z and apostrophes, at least one letter.
        lookup: Gives a known word's phones, None for others.

    Returns:
        Phones of the CMU dictionary without stress marks, separated by blanks.
    """
    for guess in (_plural, _compound, _with_ending):
        phones = guess(word, lookup)
        if phones is not None:
            return phones
    letters = word.replace("'", "")
    if not set(letters) & set("aeiouy"):
        return " ".join(_LETTERS[letter] for letter in letters)
    return _by_rules(letters)


def _plural(word: str, lookup: Callable[[str], str | None]) -> str | None:
    """Read ``x's``, ``xs'`` and ``xs`` as x with the sound that fits its end."""
    stem = word.removesuffix("'").removesuffix("s").removesuffix("'")
    phones = lookup(stem) if stem not in ("", word) else None
    if phones is None:
        return None
    last = phones.split()[-1]
    if last in _HISSING:
        return f"{phones} IH Z"
    return f"{phones} S" if last in _VOICELESS else f"{phones} Z"


def _compound(word: str, lookup: Callable[[str], str | None]) -> str | None:
    """Read a word as two known ones of at least three letters, halves most equal."""
    middle = len(word) // 2
    for cut in sorted(range(3, len(word) - 2), key=lambda cut: abs(cut - middle)):
        halves = lookup(word[:cut]), lookup(word[cut:])
        if None not in halves:
            return " ".join(halves)
    return None


def _with_ending(word: str, lookup: Callable[[str], str | None]) -> str | None:
    for ending, sound in _ENDINGS.items():
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < 2:
            continue
        for known in (stem, stem + "e", stem[:-1] if stem[-1] == stem[-2] else stem):
            phones = lookup(known)
            if phones is not None:
                return f"{phones} {sound}"
    return None


def _by_rules(letters: str) -> str:
    """Read letters from left to right with the longest rule that fits."""
    phones: list[str] = []
    place = 0
    for start, sound in _START.items():
        if letters.startswith(start) and len(letters) > len(start):
            phones, place = [sound], len(start)
            break
    # A last e behind a consonant is silent.
    silent = len(letters) > 3 and letters[-1] == "e" and letters[-2] not in "aeiou"
    end = len(letters) - silent
    while place < end:
        for size in range(min(_LONGEST, end - place), 0, -1):
            sound = _RULES.get(letters[place : place + size])
            if sound is not None:
                break
        # A doubled consonant is one sound.
        if not phones or not (size == 1 and sound == phones[-1]):
            phones.append(sound)
        place += size
    return " ".join(phones)
