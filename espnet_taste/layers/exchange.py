"""Another utterance's text or codes in place of one's own: how reliance is measured.

A decoder that reads its condition must do worse with another's. What is exchanged in
keeps the form that training showed: one row of codes for all tokens of a word.

Symbols: U utterances, T tokens, D width of the values.
"""

import torch
from torch import Tensor

from espnet_taste.layers.word_pooling import first_of_words


def exchange(values: Tensor, lengths: Tensor) -> Tensor:
    """Give every utterance the next one's sequence, repeated to the full width.

    Args:
        values: (U, T, ...).
        lengths: Valid items per row, (U,), int64, at least 1.

    Returns:
        Same shape; row u holds row u+1.
    """
    return repeat_to_width(values.roll(-1, dims=0), lengths.roll(-1, dims=0))


def repeat_to_width(values: Tensor, lengths: Tensor) -> Tensor:
    """Fill the padding of every row by repeating the row.

    Args:
        values: (U, T, ...).
        lengths: Valid items per row, (U,), int64, at least 1.

    Returns:
        Same shape; position t holds position ``t mod length``.
    """
    positions = torch.arange(values.size(1), device=values.device)
    source = positions[None, :] % lengths[:, None]
    index = source.reshape(*source.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand_as(values))


def word_by_word(
    values: Tensor, lengths: Tensor, other_words: Tensor, words: Tensor
) -> Tensor:
    """Give every word the value of another utterance's word of the same number.

    Args:
        values: Of the other utterances, the same for all tokens of a word, (U, T, D).
        lengths: Their numbers of tokens, (U,), int64, at least 1.
        other_words: Their words, (U, T), int64; any padding.
        words: The words that are given the values, (U, T), int64; any padding.

    Returns:
        (U, T, D); where there are too few words, they are repeated.
    """
    table = first_of_words(values, other_words, lengths, num_words=values.size(1))
    count = other_words.gather(1, lengths[:, None] - 1) + 1
    source = words.clamp(min=0) % count
    return table.gather(1, source[..., None].expand(-1, -1, values.size(2)))
