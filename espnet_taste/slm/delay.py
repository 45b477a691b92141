"""Word-delay layout: which token, TASTE vector and label stands where.

The spoken LM reads, at every position, the sum of one text token and one TASTE
vector, and the TASTE of a word arrives D words late: when the first token of a
word is read, the word's own codes are what the model has yet to predict. Here is
the closed form of that layout as plain index arrays, for one utterance and for a
batch, so that the model needs nothing but gathers.

With T tokens and delay D there are T + D fused positions; the LLM reads
[start, fused positions] and so has T + D + 1 outputs. Example, D = 1, word
indices 0 1 1 2 3 3::

    output        0    1    2    3    4    5    6    7
    LLM reads     SOS  t0   t1   t2   t3   t4   t5   PAD
    with TASTE    -    PAD  w0   w0   w1   w2   w2   w3
    text label    t0   t1   t2   t3   t4   t5   -    -
    TASTE label   -    w0   -    w1   w2   -    w3   -

Symbols: B batch, T tokens, W words, Q codebooks, D delay, L = T + D positions.

Source: TASTE (arXiv:2504.07053), word-level delay; the reference computes the same
layout by loops over words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from espnet_taste.types import IGNORE

PAD = -2
"""Marks a position that holds a learned pad vector.

It differs from ``IGNORE``, which pads a batch: pad vectors belong to the sequence.
"""

DelayLevel = Literal["word", "token"]


@dataclass(frozen=True)
class DelayLayout:
    """Layout of one utterance as index arrays."""

    tokens: np.ndarray  # (T + D,) int64; token id, PAD on the last D
    taste_words: np.ndarray  # (T + D,) int64; word whose TASTE is read, or PAD
    label_words: np.ndarray  # (T + D + 1,) int64; word to predict, or IGNORE


@dataclass(frozen=True)
class DelayBatch:
    """Layouts and codes of a batch, right padded with IGNORE."""

    tokens: Tensor  # (B, L) int64; token id, PAD, or IGNORE behind the end
    taste_words: Tensor  # (B, L) int64; word index, PAD, or IGNORE behind the end
    label_words: Tensor  # (B, L + 1) int64; word index or IGNORE
    word_codes: Tensor  # (B, W, Q) int64; IGNORE behind the last word

    def to(self, device: torch.device | str) -> "DelayBatch":
        """Return the batch on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items()}
        return DelayBatch(**moved)


def delay_words(
    tokens: Sequence[int],
    words: Sequence[int],
    delay: int,
    level: DelayLevel = "word",
) -> DelayLayout:
    """Lay out one utterance.

    Args:
        tokens: LLM token ids, (T,), without start symbol.
        words: Word index of every token, (T,), from 0 up without gaps.
        delay: Delay D of the TASTE stream, at least 1.
        level: What D counts. ``"word"`` is the released model; ``"token"`` delays
            the stream by D tokens, with every token carrying its word's TASTE.

    Returns:
        The layout.

    Raises:
        ValueError: If the delay is below 1 (the model would read what it has to
            predict), there is no token, or the word indices have a gap.
    """
    ids = np.asarray(tokens, dtype=np.int64)
    owner = np.asarray(words, dtype=np.int64)
    _check(ids, owner, delay, level)
    num_words = int(owner[-1]) + 1
    is_first = np.diff(owner, prepend=-1) == 1

    if level == "word":
        # The tail delivers the last D words; in front of word D there is none yet.
        tail = np.arange(num_words - delay, num_words)
        source = np.concatenate([owner - delay, tail])
        is_label = np.concatenate([is_first, np.ones(delay, dtype=bool)])
    else:
        early = np.full(delay, -1)
        source = np.concatenate([early, owner])
        is_label = np.concatenate([np.zeros(delay, dtype=bool), is_first])

    labels = np.where(is_label & (source >= 0), source, IGNORE)
    return DelayLayout(
        tokens=np.concatenate([ids, np.full(delay, PAD)]),
        taste_words=np.where(source >= 0, source, PAD),
        label_words=np.concatenate([labels, [IGNORE]]),
    )


def _check(ids: np.ndarray, owner: np.ndarray, delay: int, level: str) -> None:
    if delay < 1:
        raise ValueError(
            f"delay must be at least 1, got {delay}: with 0 the model would read the "
            "codes it has to predict"
        )
    if level not in ("word", "token"):
        raise ValueError(f"delay level must be 'word' or 'token', got '{level}'")
    if ids.ndim != 1 or ids.shape != owner.shape or len(ids) == 0:
        raise ValueError(
            "tokens and words must be two rows of one length above 0, got shapes "
            f"{ids.shape} and {owner.shape}"
        )
    steps = np.diff(owner, prepend=-1)
    if steps[0] != 1 or not np.isin(steps, (0, 1)).all():
        raise ValueError(
            f"word indices must count up from 0 without gaps, got {owner.tolist()}"
        )


def collate(
    layouts: Sequence[DelayLayout], word_codes: Sequence[np.ndarray]
) -> DelayBatch:
    """Pad layouts and codes to a batch.

    ESPnet's ``CommonCollateFn`` with integer pad value IGNORE does the same to the
    fields one by one; this is for callers without a data loader.

    Args:
        layouts: One layout an utterance.
        word_codes: Codes per word of the same utterances, each (W, Q), int; rows of
            PAD for words that are only written.

    Returns:
        The batch, on the CPU; words that are only written have the learned pad for
        TASTE and, like padding, codes of IGNORE.

    Raises:
        ValueError: If an utterance has another number of words than code rows.
    """
    for index, (layout, codes) in enumerate(zip(layouts, word_codes, strict=True)):
        num_words = int(layout.label_words.max()) + 1
        if len(codes) != num_words:
            raise ValueError(
                f"utterance {index} has {num_words} words but codes for {len(codes)}"
            )
    batch = DelayBatch(
        tokens=_pad([layout.tokens for layout in layouts]),
        taste_words=_pad([layout.taste_words for layout in layouts]),
        label_words=_pad([layout.label_words for layout in layouts]),
        word_codes=_pad(word_codes),
    )
    return _silence(batch)


def _silence(batch: DelayBatch) -> DelayBatch:
    """Make text of words whose codes are PAD: they are not read, nor predicted."""
    is_silent = batch.word_codes[..., 0] == PAD
    if not is_silent.any():
        return batch

    def without(index: Tensor, fill: int) -> Tensor:
        gone = is_silent.gather(1, index.clamp(min=0)) & (index >= 0)
        return torch.where(gone, fill, index)

    return DelayBatch(
        tokens=batch.tokens,
        taste_words=without(batch.taste_words, PAD),
        label_words=without(batch.label_words, IGNORE),
        word_codes=batch.word_codes.masked_fill(is_silent[..., None], IGNORE),
    )


def _pad(rows: Sequence[np.ndarray]) -> Tensor:
    longest = max(len(row) for row in rows)
    shape = (len(rows), longest, *np.shape(rows[0])[1:])
    padded = np.full(shape, IGNORE, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return torch.from_numpy(padded)


def text_labels(tokens: Tensor, end_id: int | None = None) -> Tensor:
    """Return the next-token target of every LLM output.

    The pads and everything behind the end get IGNORE. (Reference defect C1: its
    batches give the outputs behind a short sequence the label 0.)

    Args:
        tokens: Token slots of a batch, (B, L), int64.
        end_id: Target of the output behind the last token; None for none (released).

    Returns:
        Labels, (B, L + 1), int64, IGNORE where nothing is predicted.
    """
    labels = torch.where(tokens >= 0, tokens, IGNORE)
    if end_id is not None:
        is_pad = tokens == PAD
        is_first = is_pad & ~torch.nn.functional.pad(is_pad, (1, 0))[:, :-1]
        labels = torch.where(is_first, end_id, labels)
    return torch.nn.functional.pad(labels, (0, 1), value=IGNORE)


def word_outputs(label_words: Tensor, num_words: int) -> Tensor:
    """Find the LLM output that predicts each word: the inverse of the delay.

    Args:
        label_words: Word to predict at every output, (B, L + 1), int64.
        num_words: Number of words W of the longest utterance.

    Returns:
        Output position of every word, (B, W), int64; 0 for words that a row does
        not have (mask them by their codes).
    """
    batch, length = label_words.shape
    positions = torch.arange(length, device=label_words.device).expand(batch, length)
    # Unlabelled outputs are written to an extra column that nobody reads.
    column = torch.where(label_words >= 0, label_words, num_words)
    table = label_words.new_zeros(batch, num_words + 1)
    return table.scatter(1, column, positions)[:, :num_words]
