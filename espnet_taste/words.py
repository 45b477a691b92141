"""The one word rule: text to words, words to tokens, codes between tokenizers.

Words tie the two text tokenizers together. Both cut the same list of words, a
code belongs to a word, and so codes move between the tokenizers by word index.
Everything here is plain Python on integers: no torch, no vocabulary.

Symbols: ``words`` of a token row are its word indices, counting up from 0
without gaps, e.g. ``[0, 0, 1]`` for two words of two and one tokens.

Source: TASTE (arXiv:2504.07053), word grouping; inference rule of the
reference (a blank in front of every word).
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from espnet_taste.types import IGNORE

Row = TypeVar("Row")


@dataclass(frozen=True)
class TokenizedWords:
    """Tokens of one text and the word each of them belongs to."""

    tokens: list[int]  # token ids
    words: list[int]  # word index of every token, same length, from 0 up


def split_words(text: str, keep_empty: bool = False) -> list[str]:
    """Cut a text into words at its whitespace.

    Args:
        text: Any text; Unicode whitespace counts, a no-break blank included.
        keep_empty: Cut at every single whitespace character, so that a doubled
            blank leaves an empty word. This is the released rule; it gives
            that empty word codes of its own.

    Returns:
        The words without any whitespace. Without ``keep_empty`` none is empty
        and a blank text gives no word.
    """
    if keep_empty:
        return re.split(r"\s", text.strip())
    return text.split()


# Scripts that are written without blanks between words: Han, kana, Thai, Lao,
# Tibetan, Myanmar, Khmer. Their letters and digits are signs; marks that follow a sign
# stay with it, and so does punctuation.
_SIGNS = "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
_SIGNS += "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_UNSPACED = re.compile(f"[{_SIGNS}]")
MARKS = ("Mn", "Mc", "Lm")  # Unicode categories


def space_signs(text: str) -> str:
    """Put blanks between the signs of scripts that are written without them.

    The rule by which such text gets words: every sign (with the marks on it) is one.
    It needs no dictionary, and is what error rates of these languages count. A letter
    or digit of another script begins a word behind a sign, with or without a blank.
    Other text is returned as it is, up to runs of whitespace.

    Args:
        text: Any text.

    Returns:
        The text with single blanks between its words.
    """
    pieces: list[str] = []
    for word in text.split():
        is_mark = _UNSPACED.match(word) is not None and _is_mark(word[0])
        if is_mark and pieces and starts_with_sign(pieces[-1]):
            word = pieces.pop() + word
        pieces += _cut_signs(word)
    return " ".join(pieces)


def _cut_signs(word: str) -> list[str]:
    """Cut a word without whitespace in front of its signs and what follows them."""
    if _UNSPACED.search(word) is None:
        return [word]
    pieces: list[str] = []
    is_behind_sign = False
    for char in word:
        is_sign = starts_with_sign(char)
        begins = is_sign or (is_behind_sign and _is_plain(char))
        if begins or not pieces:
            pieces.append(char)
            is_behind_sign = is_sign
        else:
            pieces[-1] += char
    return pieces


def starts_with_sign(text: str) -> bool:
    """Whether a text begins with a sign that is a word by ``space_signs``."""
    return _UNSPACED.match(text) is not None and _is_plain(text[0])


def _is_plain(char: str) -> bool:
    """Tell whether a character is a letter or digit, and no mark."""
    return unicodedata.category(char)[0] in "LN" and not _is_mark(char)


def spelling(word: str) -> str:
    """Return what a transcript and a recogniser have in common of a word.

    Args:
        word: A word as it is written.

    Returns:
        Its letters, marks (vowels, in many scripts) and digits, composed and without
        case; the word itself if there are none.
    """
    folded = unicodedata.normalize("NFKC", word).casefold()
    folded = unicodedata.normalize("NFKC", folded)
    kept = "".join(c for c in folded if unicodedata.category(c)[0] in "LMN")
    return kept or word


def _is_mark(sign: str) -> bool:
    return unicodedata.combining(sign) > 0 or unicodedata.category(sign) in MARKS


def encode_words(
    words: Sequence[str], encode: Callable[[str], Sequence[int]]
) -> TokenizedWords:
    """Tokenize words one by one, each with a leading blank.

    One word at a time keeps a token from spanning two words, and the blank
    makes the first word look like every other one.

    Args:
        words: Words without leading blank, as ``split_words`` returns them.
        encode: Text to token ids, without special tokens.

    Returns:
        The tokens of all words and their word indices.

    Raises:
        ValueError: If a word gets no token; it could never carry a code.
    """
    tokens: list[int] = []
    indices: list[int] = []
    for index, word in enumerate(words):
        pieces = encode(" " + word)
        if len(pieces) == 0:
            raise ValueError(
                f"word {index} {word!r} gets no token from this tokenizer; remove the "
                "word from the transcript"
            )
        tokens.extend(pieces)
        indices.extend([index] * len(pieces))
    return TokenizedWords(tokens, indices)


def word_spans(words: Sequence[int]) -> list[tuple[int, int]]:
    """Return the token span of every word.

    Args:
        words: Word index of every token, from 0 up without gaps.

    Returns:
        Half-open (start, stop) token positions, one pair a word.

    Raises:
        ValueError: If the indices do not start at 0 or leave one out.
    """
    starts: list[int] = []
    for position, word in enumerate(words):
        if word == len(starts):
            starts.append(position)
        elif word != len(starts) - 1 or not starts:
            raise ValueError(
                f"word indices must count up from 0 without gaps, got {word} behind "
                f"{len(starts)} words at token {position}"
            )
    return list(zip(starts, [*starts[1:], len(words)]))


def code_sources(asr_words: Sequence[int], llm_words: Sequence[int]) -> list[int]:
    """Say from which ASR token every LLM token takes its codes.

    Only the first LLM token of a word gets codes, because the spoken LM predicts
    one TASTE vector a word. They come from the first ASR token of the word; all
    its tokens have the same codes, since features are averaged over the word.

    Args:
        asr_words: Word index of every ASR token, without padding.
        llm_words: Word index of every LLM token, without padding.

    Returns:
        ASR token position per LLM token, IGNORE inside words.

    Raises:
        ValueError: If the two rows do not cover the same words.
    """
    asr_spans = word_spans(asr_words)
    llm_spans = word_spans(llm_words)
    if len(asr_spans) != len(llm_spans):
        raise ValueError(
            f"ASR tokens cover {len(asr_spans)} words, LLM tokens {len(llm_spans)}; "
            "tokenize the same list of words with both"
        )
    sources = [IGNORE] * len(llm_words)
    for (asr_start, _), (llm_start, _) in zip(asr_spans, llm_spans):
        sources[llm_start] = asr_start
    return sources


def expand_word_rows(rows: Sequence[Row], words: Sequence[int]) -> list[Row]:
    """Repeat one row a word on all tokens of the word.

    Args:
        rows: Anything with one item a word, e.g. the codes (W, Q).
        words: Word index of every token, from 0 up without gaps.

    Returns:
        One row a token.

    Raises:
        ValueError: If the number of rows is not the number of words.
    """
    num_words = len(word_spans(words))
    if len(rows) != num_words:
        raise ValueError(f"{num_words} words need as many rows, got {len(rows)}")
    return [rows[word] for word in words]
