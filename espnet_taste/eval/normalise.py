"""The one text normaliser of every error rate, versioned by name.

It knows no language. Rules, in order:

1. Unicode NFKC and full case folding: case never counts.
2. Marks in square or angle brackets ("[laughter]", "<unk>") go. Round brackets
   go, the words inside them stay.
3. Letters, combining marks and digits stay. An apostrophe stays between two of
   them ("don't"), with every typographic form made the plain one. All else,
   hyphens and symbols included, becomes a space.
4. Digits stay as they are written: "3" and "three" are different words. Numbers
   are the judge's business (``asr_judge`` makes it spell them out).

A change of any rule is a change of ``NORMALISER``: rates are comparable only
under one name.
"""

import re
import unicodedata

NORMALISER = "basic-1"

# Also the turned and modifier forms, which NFKC leaves alone.
_APOSTROPHES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u02bc\u02b9`\u00b4", "'")
)
_BRACKETED = re.compile(r"\[[^\[\]]*\]|<[^<>]*>")


def normalise(text: str) -> str:
    """Return the words that count, separated by single spaces.

    Args:
        text: A transcript in any language.

    Returns:
        The normalised text; empty if nothing speakable is left.
    """
    # Apostrophes first: NFKC would turn the acute accent into a space and a mark.
    text = text.translate(_APOSTROPHES)
    text = _BRACKETED.sub(" ", _fold(text)).translate(_APOSTROPHES)
    kept = "".join(_keep(text, position) for position in range(len(text)))
    return " ".join(kept.split())


def _fold(text: str) -> str:
    """Fold case and compatibility forms until nothing changes."""
    # One round is not enough: folding can uncover a composition and back.
    for _ in range(4):
        folded = unicodedata.normalize("NFKC", text.casefold())
        if folded == text:
            break
        text = folded
    return text


def _keep(text: str, position: int) -> str:
    """Return the character at a position if it counts, else a space."""
    char = text[position]
    if char == "'":
        before = text[position - 1 : position]
        after = text[position + 1 : position + 2]
        return char if _counts(before) and _counts(after) else " "
    return char if _counts(char) else " "


def _counts(char: str) -> bool:
    """Say whether a character is a letter, a mark or a number."""
    return bool(char) and unicodedata.category(char)[0] in "LMN"
