"""Group normalisation over the valid steps of a row, whatever stands behind them.

``nn.GroupNorm`` takes its statistics over time too, so that padding would move
every value of a row. Without padding it is what runs; with padding mean and variance
are taken over the valid steps alone, and equal those of the row on its own.

Symbols: B batch, C channels, T steps.

Source: group normalisation (arXiv:1803.08494).
"""

import torch
from torch import Tensor, nn


class MaskedGroupNorm(nn.GroupNorm):
    """Group normalisation that padding does not reach; parameters of ``GroupNorm``."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise.

        Args:
            x: (B, C, T), float; anything finite on padding.
            mask: 1 on valid steps and 0 elsewhere, (B, 1, T), float, at least one
                valid step a row; None if all are.

        Returns:
            (B, C, T); meaningless on padding.
        """
        if mask is None:
            return super().forward(x)
        groups = x.unflatten(1, (self.num_groups, -1))  # (B, G, C / G, T)
        valid = mask[:, None]  # (B, 1, 1, T)
        count = valid.sum((2, 3), keepdim=True) * groups.size(2)
        mean = (groups * valid).sum((2, 3), keepdim=True) / count
        # Two passes: the mean square minus the squared mean would cancel.
        centred = groups - mean
        variance = (centred * valid).square().sum((2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).flatten(1, 2)
        return normed * self.weight[:, None] + self.bias[:, None]


def padding_mask(lengths: Tensor, size: int, dtype: torch.dtype) -> Tensor | None:
    """Return 1 on valid steps and 0 elsewhere, or None where nothing is padding.

    Looking whether there is padding waits for the device once.

    Args:
        lengths: Valid steps, (B,), int64.
        size: Steps T of the padded batch.
        dtype: Type of the mask.

    Returns:
        (B, 1, T) or None.
    """
    if int(lengths.min()) >= size:
        return None
    steps = torch.arange(size, device=lengths.device)
    return (steps < lengths[:, None])[:, None].to(dtype)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return (B, C, T) with zeros on padding."""
    return x if mask is None else x * mask
