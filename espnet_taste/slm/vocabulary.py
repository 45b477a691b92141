"""What the completion loop knows about every token of the LLM.

Questions answered once per tokenizer and kept as masks: does the token start a word,
does it end a sentence, must it never be drawn. Answering them takes one call of the
tokenizer for every id, seconds for a large vocabulary.

Many tokenizers cut a blank off what follows it, a numeral or a sign of Chinese: the
blank is then a token of its own, the first of its word, and must not be forbidden.

Source: TASTE (arXiv:2504.07053); rules of the reference's sampler.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from espnet_taste.words import space_signs, starts_with_sign

BanRule = Literal["released", "unspeakable"]
# Full stop, question and exclamation mark; then those of Chinese and Japanese, Arabic,
# Urdu, Hindi, Amharic, Khmer and Myanmar.
SENTENCE_ENDS = ".?!\u3002\uff0e\uff61\uff1f\uff01\u061f\u06d4\u0964\u1362\u17d4\u104b"
# Banned by the released code under its number 128001, whatever the tokenizer ends with.
RELEASED_END = "<|end_of_text|>"
# The released ban list allows only what has one of these.
RELEASED_ALLOWED = re.compile(r"[A-Za-z0-9.,']")


@dataclass(frozen=True)
class Vocabulary:
    """Masks over the LLM's logits."""

    word_start: Tensor  # (V,) bool; by a leading blank
    sign: Tensor  # (V,) bool; starts a word unless a lone blank is in front of it
    blank: Tensor  # (V,) bool; a lone blank: the rest of its word must follow
    sentence_end: Tensor  # (V,) bool
    banned: Tensor  # (V,) bool; never drawn
    stop: Tensor  # (V,) bool; ends a completion at once

    def to(self, device: torch.device | str) -> "Vocabulary":
        """Return the masks on another device."""
        moved = {name: mask.to(device) for name, mask in vars(self).items()}
        return Vocabulary(**moved)


def build_vocabulary(
    texts: Sequence[str],
    *,
    num_logits: int | None = None,
    special_ids: Collection[int] = (),
    stop_ids: Collection[int] = (),
    banned_ids: Collection[int] = (),
    ban: BanRule = "unspeakable",
    sentence_end: str = ".",
) -> Vocabulary:
    """Classify the tokens of an LLM.

    A token starts a word if it begins with a blank or is special, or with a sign of a
    script that is written without blanks (see ``words.space_signs``); by the released
    rule the former alone.

    Args:
        texts: Text of every id as it reads behind another token, V of them.
        num_logits: Size of the LLM's output; ids without text are banned.
        special_ids: Ids that are no text.
        stop_ids: Ids that end a completion; never banned.
        banned_ids: Further ids that must not be drawn.
        ban: ``"unspeakable"`` bans special ids, and tokens that hide a word: several
            signs, or whitespace other than one leading blank.
            ``"released"`` bans what has no letter a-z, digit, full stop, comma or
            apostrophe, or has a newline: no ``?``, ``!``, ``-`` on their own and
            nothing in another script. It judges special ids by their text alone.
        sentence_end: Characters that end a sentence.

    Returns:
        The masks, on the CPU.

    Raises:
        ValueError: If the rule is unknown, no character ends a sentence, or nothing
            is left to draw.
    """
    if ban not in ("released", "unspeakable"):
        raise ValueError(f"ban must be 'released' or 'unspeakable', got '{ban}'")
    if not sentence_end:
        raise ValueError("sentence_end must name at least one character")
    special = set(special_ids)
    ends = re.compile(f"[{re.escape(sentence_end)}]")
    size = max(num_logits or 0, len(texts))
    banned = _as_mask(_banned_flags(texts, special, ban), size)
    banned[len(texts) :] = True
    banned[list(banned_ids)] = True
    banned[list(stop_ids)] = False
    stop = torch.zeros_like(banned)
    stop[list(stop_ids)] = True
    if bool((banned | stop).all()):
        raise ValueError(
            f"the rule '{ban}' bans all {len(texts)} tokens; nothing could be said"
        )
    starts = [text.startswith(" ") or i in special for i, text in enumerate(texts)]
    starts_word = _as_mask(starts, size)
    blank = _as_mask([text == " " for text in texts], size) & ~banned
    if bool((banned | starts_word).all()):  # nothing could follow a lone blank
        banned, blank = banned | blank, torch.zeros_like(blank)
    return Vocabulary(
        word_start=starts_word,
        sign=_as_mask([_is_sign(text, ban) for text in texts], size),
        blank=blank,
        sentence_end=_as_mask([ends.search(text) is not None for text in texts], size),
        banned=banned,
        stop=stop,
    )


def _is_sign(text: str, ban: BanRule) -> bool:
    """Tell whether a token starts a word without a blank in front."""
    return ban != "released" and starts_with_sign(text)


def _as_mask(flags: list[bool], size: int) -> Tensor:
    return torch.tensor(flags + [False] * (size - len(flags)), dtype=torch.bool)


def _banned_flags(texts: Sequence[str], special: set[int], ban: BanRule) -> list[bool]:
    if ban == "released":
        return [_is_banned_as_released(text) for text in texts]
    return [i in special or _is_unspeakable(text) for i, text in enumerate(texts)]


def _is_banned_as_released(text: str) -> bool:
    return "\n" in text or RELEASED_ALLOWED.search(text) is None


def _is_unspeakable(text: str) -> bool:
    rest = text.removeprefix(" ")
    if text == " ":
        return False
    return not rest or re.search(r"\s", rest) is not None or " " in space_signs(rest)


@lru_cache(maxsize=4)
def read_vocabulary(
    tokenizer: PreTrainedTokenizerBase,
    num_logits: int | None = None,
    ban: BanRule = "unspeakable",
    sentence_end: str = SENTENCE_ENDS,
    end_id: int | None = None,
) -> Vocabulary:
    """Classify the tokens of a tokenizer; the result is kept.

    Args:
        tokenizer: The LLM's tokenizer.
        num_logits: Size of the LLM's output, which may exceed the vocabulary.
        ban: See ``build_vocabulary``.
        sentence_end: Characters that end a sentence.
        end_id: Token that the LLM has learned to predict behind a text, which ends a
            completion, see ``SpokenLM``; None for the released way, which never
            learns one. The tokenizer's own end symbol is banned if it is another, and
            by the released rule so is Llama's end of text.

    Returns:
        The masks, on the CPU.
    """
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if ban == "released":  # by its number: instruction-tuned LLMs end in another one
        texts_end = tokenizer.get_vocab().get(RELEASED_END)
        eos += [] if texts_end is None else [texts_end]
    added = tokenizer.added_tokens_decoder
    special = {index for index, token in added.items() if token.special}
    return build_vocabulary(
        token_texts(tokenizer),
        num_logits=num_logits,
        special_ids=special | set(tokenizer.all_special_ids),
        stop_ids=() if end_id is None else (end_id,),
        banned_ids=eos,
        ban=ban,
        sentence_end=sentence_end,
    )


@lru_cache(maxsize=4)
def token_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the text of every id, as it reads behind another token.

    Some tokenizers drop the blank of a token that is decoded alone, so each is
    decoded behind an "a".

    Args:
        tokenizer: The LLM's tokenizer.

    Returns:
        One text an id.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False)[-1:]
    size = max(tokenizer.get_vocab().values()) + 1
    behind = [[*anchor, index] for index in range(size)]
    start = len(tokenizer.decode(anchor, clean_up_tokenization_spaces=False))
    decoded = tokenizer.batch_decode(behind, clean_up_tokenization_spaces=False)
    return tuple(text[start:] for text in decoded)
