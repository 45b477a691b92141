"""Show attention heads where to look, from known times of words.

On little data a unit LM hardly finds out which word it is speaking: the history of
units predicts the next one well enough. Forced alignment knows the word, so one head
of chosen layers is asked to look at its tokens. Only training is changed; a trained
model needs no times.

Symbols: N positions of a batch, n blocks of c positions, H heads.

Source: guided attention (arXiv:1710.08969), with times instead of a diagonal.
"""

import torch
from torch import Tensor

Sizes = tuple[tuple[int, int], ...]


class AttentionGuide:
    """Collect, over one forward pass, how little the guided heads look at their word.

    Args:
        queries: Word whose unit a position predicts, (N,), int64, negative where none.
            Words of different rows have different numbers.
        keys: Word that a text position belongs to, (N,), int64, negative elsewhere.
        sizes: Blocks as in ``CausalBlocks``.
        layers: Layers whose first head is guided.
    """

    def __init__(
        self, queries: Tensor, keys: Tensor, sizes: Sizes, layers: tuple[int, ...]
    ):
        self.layers = layers
        self.count = (queries >= 0).sum().clamp(min=1)
        self.losses: list[Tensor] = []
        lengths = [n * c for n, c in sizes]
        groups = zip(queries.split(lengths), keys.split(lengths), sizes, strict=True)
        self.targets = [
            (q.view(n, c, 1) == k.view(n, 1, c)) & (q >= 0).view(n, c, 1)
            for q, k, (n, c) in groups
        ]

    def read(self, group: int, queries: Tensor, keys: Tensor, bias: Tensor) -> None:
        """Add one group of blocks of one layer.

        Args:
            group: Number of the group.
            queries: Scaled queries, (H, n, c, dk).
            keys: (H, n, c, dk).
            bias: Positional scores and mask, (H, n, c, c).
        """
        target = self.targets[group]
        scores = torch.baddbmm(bias[0], queries[0], keys[0].transpose(1, 2)).float()
        total = scores.logsumexp(-1)
        # Where there is nothing to look at, the fill cancels out of value and
        # gradient; minus infinity would make both NaN.
        aimed = scores.masked_fill(~target, torch.finfo(torch.float32).min)
        missed = total - aimed.logsumexp(-1)
        self.losses.append(torch.where(target.any(-1), missed, 0.0).sum())

    def loss(self) -> Tensor:
        """Return minus the log share of attention on the right word, a mean, ()."""
        return torch.stack(self.losses).sum() / (self.count * len(self.layers))
