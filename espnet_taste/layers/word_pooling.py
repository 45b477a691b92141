"""From sub-words to words and back: means over words, first tokens of words.

The Whisper decoder yields one vector per sub-word; TASTE keeps one per word.
The mean is copied back to all sub-words of the word, so the sequence length
does not change and both tokenizers can index it by word id.

Symbols: B batch, T sub-words, W words, D feature width.

Source: TASTE (arXiv:2504.07053), word grouping; reference forward type
``asr_attn_pooling``.
"""

import torch
from torch import Tensor

from espnet_taste.types import IGNORE


def pool_words(features: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
    """Replace every sub-word feature by the mean over its word.

    Args:
        features: Sub-word features, (B, T, D), float.
        words: Word index of every sub-word, (B, T), int, counting up from 0
            in each row. Values past the row's length are ignored, so any pad
            value is safe.
        lengths: Number of valid sub-words per row, (B,), int, at most T.

    Returns:
        Pooled features, (B, T, D), same dtype; zeros past each row's length.

    Raises:
        ValueError: If the three shapes do not agree.
    """
    valid = _valid_tokens(features, words, lengths)
    num_tokens = features.size(1)

    # Padding goes to an extra word that nothing reads. Pad value 0 is also the id
    # of the first word: without this, a one-word row averages its padding in
    # (reference defect C2).
    slots = torch.where(valid, words.long(), num_tokens)
    index = slots[..., None].expand_as(features)

    sums = features.new_zeros(features.size(0), num_tokens + 1, features.size(-1))
    sums = sums.scatter_add(1, index, features)
    counts = features.new_zeros(features.size(0), num_tokens + 1)
    counts = counts.scatter_add(1, slots, torch.ones_like(counts[:, :-1]))

    means = sums / counts.clamp(min=1)[..., None]
    return means.gather(1, index).masked_fill(~valid[..., None], 0.0)


def first_of_words(
    values: Tensor, words: Tensor, lengths: Tensor, num_words: int | None = None
) -> Tensor:
    """Keep one row a word: that of its first sub-word.

    Args:
        values: One row per sub-word, e.g. codes (B, T, D), integer.
        words: Word index of every sub-word, (B, T), int, from 0 up without gaps;
            any padding.
        lengths: Number of valid sub-words per row, (B,), int.
        num_words: W, at least the largest number of words; None finds it out,
            which waits for the device.

    Returns:
        One row a word, (B, W, D); IGNORE behind a row's last word.

    Raises:
        ValueError: If the three shapes do not agree.
    """
    valid = _valid_tokens(values, words, lengths)
    words = words.long().masked_fill(~valid, IGNORE)
    if num_words is None:
        num_words = int(words.max()) + 1
    starts = valid.clone()
    starts[:, 1:] &= words[:, 1:] != words[:, :-1]
    # Everything but the first sub-words goes to an extra slot that is cut off.
    slots = torch.where(starts, words, num_words)
    rows = values.new_full((values.size(0), num_words + 1, values.size(2)), IGNORE)
    rows = rows.scatter(1, slots[..., None].expand_as(values), values)
    return rows[:, :num_words]


def _valid_tokens(features: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
    """Check the shapes; return the mask of valid sub-words, (B, T)."""
    batch, num_tokens, _ = features.shape
    if words.shape != (batch, num_tokens) or lengths.shape != (batch,):
        raise ValueError(
            f"expected words ({batch}, {num_tokens}) and lengths ({batch},) for "
            f"features {tuple(features.shape)}, got {tuple(words.shape)} and "
            f"{tuple(lengths.shape)}"
        )
    positions = torch.arange(num_tokens, device=features.device)
    return positions < lengths.to(features.device)[:, None]
