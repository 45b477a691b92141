"""Edits of TASTE tokens, word by word: plain functions from tokens to tokens.

    edit = transplant(tokens, 3, other, 5)
    tokenizer.decode(edit.tokens).save("edited.wav")
    print(*edit.caveats, sep="\\n")

What an edit does to tokens is exact and is tested; what a decoder makes of it is not
in its hands, and ``caveats`` says so. Edits that need the codebooks, interpolation and
retiming, stand in ``espnet_taste.pipeline.delivery``; what came of an edit is measured
by ``espnet_taste.pipeline.edit_report``.

Edited tokens have no word times: those of the recording are no longer true, and when
words are spoken is known only after decoding. ``span_s`` stays that of the recording.

Symbols: W words, Q codebooks, D TASTE width.

Source: TASTE (arXiv:2504.07053), text-aligned speech editing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import index

import numpy as np

from espnet_taste.pipeline.tokens import TasteTokens, require_same_tokenizer
from espnet_taste.words import encode_words, space_signs, split_words

ROWS = ("codes", "embeds")  # what says how a word is spoken
DRAWN_ANEW = (
    "All units are drawn anew: a decoder that reads the whole sentence may speak "
    "words that were not edited differently too."
)
NO_TIMES = "When words are spoken is not known until the tokens have been decoded."
OTHER_VOICE = (
    "The voice is that of the target's speaker embedding; what codes of another "
    "recording hold of its voice, loudness and room comes along."
)


@dataclass(frozen=True, eq=False)
class Edit:
    """Edited tokens, and what was done.

    Args:
        tokens: The result; without word times.
        changed: Words of the result that differ, in order, from 0.
        origins: For every word of the result the word of the unedited tokens that it
            was; the same length as the result.
        caveats: What the edit cannot promise, a sentence each.
    """

    tokens: TasteTokens
    changed: tuple[int, ...]
    origins: tuple[int, ...]
    caveats: tuple[str, ...]


def swap_words(
    first: TasteTokens, second: TasteTokens, words: Iterable[int]
) -> tuple[Edit, Edit]:
    """Exchange how chosen words are spoken between two deliveries of one text.

    Swapping the results again gives back codes and embeddings bit by bit.

    Args:
        first: An utterance.
        second: Another one with the same words.
        words: Words to exchange, from 0.

    Returns:
        The first utterance with rows of the second, and the second with the first's.

    Raises:
        ValueError: If the texts differ, by naming the first word that does; if no word
            is chosen, or one that is not there; or if the tokens are of different
            tokenizers.
    """
    require_same_text(first, second)
    require_alike(first, second, "swap words with")
    chosen = check_words(first, words)
    caveats = (OTHER_VOICE, DRAWN_ANEW, NO_TIMES)
    return (
        edited(first, rows_taken(first, chosen, second, chosen), chosen, caveats),
        edited(second, rows_taken(second, chosen, first, chosen), chosen, caveats),
    )


def transplant(
    target: TasteTokens, word: int, source: TasteTokens, source_word: int
) -> Edit:
    """Speak a word as a word of another (or the same) utterance is spoken.

    Args:
        target: The utterance to edit.
        word: Its word, from 0; keeps its text.
        source: The utterance to take the delivery from.
        source_word: The word there.

    Raises:
        ValueError: If there is no such word, or the tokens are of different
            tokenizers.
    """
    require_alike(target, source, "transplant from")
    (word,) = check_words(target, [word])
    (source_word,) = check_words(source, [source_word])
    caveats = (OTHER_VOICE, DRAWN_ANEW, NO_TIMES)
    here, there = target.words[word], source.words[source_word]
    if here != there:
        misfit = (
            f"The codes of '{there}' were made for that word: how long and how high "
            f"'{here}' becomes need not be what '{there}' was."
        )
        caveats = (misfit, *caveats)
    rows = rows_taken(target, (word,), source, (source_word,))
    return edited(target, rows, (word,), caveats)


def replace_text(
    tokens: TasteTokens,
    word: int,
    new_text: str,
    encode: Callable[[str], Sequence[int]],
) -> Edit:
    """Say another word in place of one, spoken the same way: its codes stay.

    Args:
        tokens: The utterance to edit.
        word: The word to replace, from 0.
        new_text: What to say instead; one word.
        encode: Text to Whisper's token ids, ``tokenizer.encoder.encode_text``.

    Raises:
        ValueError: If there is no such word, or the new text is not one word or gets
            no token.
    """
    (word,) = check_words(tokens, [word])
    pieces = split_words(space_signs(new_text))
    if len(pieces) != 1:
        raise ValueError(
            f"'{new_text}' is {len(pieces)} words; one row of codes says how one word "
            "is spoken, so one word can be replaced by one"
        )
    new = np.asarray(encode_words(pieces, encode).tokens, dtype=np.int64)
    place = np.flatnonzero(tokens.asr_words == word)
    before, after = slice(0, place[0]), slice(place[-1] + 1, None)
    ids, owners = tokens.asr_tokens, tokens.asr_words
    owner = np.full(len(new), word, dtype=np.int64)
    parts = {
        "words": (*tokens.words[:word], pieces[0], *tokens.words[word + 1 :]),
        "asr_tokens": np.concatenate([ids[before], new, ids[after]]),
        "asr_words": np.concatenate([owners[before], owner, owners[after]]),
    }
    kept = (
        f"The codes were made for '{tokens.words[word]}' and hold some of its sounds: "
        f"'{pieces[0]}' may be mispronounced, and its length is not promised."
    )
    return edited(tokens, parts, (word,), (kept, DRAWN_ANEW, NO_TIMES))


def repeat_word(tokens: TasteTokens, word: int, times: int) -> Edit:
    """Say a word several times over, each time the same way.

    This is no retiming: a row of codes belongs to a word, so what is repeated is the
    word itself. To speak a word more slowly, see ``delivery.retime``.

    Args:
        tokens: The utterance to edit.
        word: The word to repeat, from 0.
        times: How often it is said, at least 2.

    Raises:
        ValueError: If there is no such word, or ``times`` is less than 2.
    """
    (word,) = check_words(tokens, [word])
    if times < 2:
        raise ValueError(f"a word is repeated by 2 times or more, got {times}")
    order = [*range(word), *[word] * times, *range(word + 1, len(tokens))]
    ids = [tokens.asr_tokens[tokens.asr_words == old] for old in order]
    parts = {
        "words": tuple(tokens.words[old] for old in order),
        "asr_tokens": np.concatenate(ids),
        "asr_words": np.repeat(np.arange(len(order)), [len(row) for row in ids]),
    }
    for name in ROWS:
        rows = getattr(tokens, name)
        parts[name] = None if rows is None else rows[order]
    said = f"'{tokens.words[word]}' is said {times} times; nothing is said more slowly."
    changed = tuple(range(word, word + times))
    return edited(tokens, parts, changed, (said, DRAWN_ANEW, NO_TIMES), order)


def edited(
    tokens: TasteTokens,
    parts: dict,
    changed: Sequence[int],
    caveats: Sequence[str],
    origins: Sequence[int] | None = None,
) -> Edit:
    """Make an edit from the parts of the tokens that are new.

    Args:
        tokens: The unedited utterance.
        parts: Fields of ``TasteTokens`` that the edit replaces.
        changed: As in ``Edit``.
        caveats: As in ``Edit``.
        origins: As in ``Edit``; None if every word is where it was.
    """
    result = replace(tokens, times=None, **parts)
    if origins is None:
        origins = range(len(result))
    return Edit(result, tuple(changed), tuple(origins), tuple(caveats))


def check_words(tokens: TasteTokens, words: Iterable[int]) -> tuple[int, ...]:
    """Return chosen words in order, each once.

    Raises:
        TypeError: If one is no integer.
        ValueError: If none is chosen, or one is not in 0..W-1.
    """
    chosen = tuple(sorted({index(word) for word in words}))
    if not chosen:
        raise ValueError("no word is chosen; name at least one, from 0")
    outside = [word for word in chosen if not 0 <= word < len(tokens)]
    if outside:
        raise ValueError(
            f"no word {outside[0]} in '{tokens.text[:40]}', whose words are "
            f"0..{len(tokens) - 1}"
        )
    return chosen


def require_same_text(first: TasteTokens, second: TasteTokens) -> None:
    """Refuse utterances of different words.

    Raises:
        ValueError: It names the first word that differs.
    """
    for place, (one, other) in enumerate(zip(first.words, second.words)):
        if one != other:
            raise ValueError(
                f"the texts differ from word {place} on: '{one}' and '{other}'; encode "
                "both recordings with the same text"
            )
    if len(first) != len(second):
        longer = max(first, second, key=len)
        place = min(len(first), len(second))
        raise ValueError(
            f"one text ends at word {place}, where the other has "
            f"'{longer.words[place]}'; encode both recordings with the same text"
        )


def require_alike(first: TasteTokens, second: TasteTokens, purpose: str) -> None:
    """Refuse rows of another tokenizer, by its name or by their width.

    Raises:
        ValueError: It names the difference.
    """
    require_same_tokenizer(second, first.models, purpose)
    if (first.codes is None) != (second.codes is None):
        raise ValueError(f"cannot {purpose} '{second.text[:40]}': only one has codes")
    if first.codes is None and (first.embeds is None or second.embeds is None):
        raise ValueError(f"cannot {purpose} '{second.text[:40]}': only one has embeds")
    for name in ROWS:
        mine, theirs = getattr(first, name), getattr(second, name)
        if mine is None or theirs is None:
            continue
        if mine.shape[1:] != theirs.shape[1:]:
            raise ValueError(
                f"cannot {purpose} '{second.text[:40]}': its {name} have "
                f"{theirs.shape[1]} columns, expected {mine.shape[1]}"
            )


def rows_taken(
    target: TasteTokens,
    places: Sequence[int],
    source: TasteTokens,
    source_places: Sequence[int],
) -> dict[str, np.ndarray | None]:
    """Return the target's rows with some of the source's in their places.

    Embeddings that only one side has are left to the codes, which both have.
    """
    rows: dict[str, np.ndarray | None] = {}
    for name in ROWS:
        mine, theirs = getattr(target, name), getattr(source, name)
        rows[name] = None
        if mine is not None and theirs is not None:
            rows[name] = mine.copy()
            rows[name][list(places)] = theirs[list(source_places)]
    return rows
