"""What an encoder hands to the aggregator, in memory and on disk."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EncoderStates:
    """Keys and values of the aggregator's cross-attention."""

    keys: Tensor  # (B, T, D) final encoder output
    values: Tensor  # (B, T, D) hidden state of a shallow layer
    lengths: Tensor  # (B,) int64, frames that may be attended

    @property
    def mask(self) -> Tensor:
        """True on frames that may be attended, (B, T)."""
        positions = torch.arange(self.keys.size(1), device=self.keys.device)
        return positions < self.lengths.to(self.keys.device)[:, None]

    def pack(self) -> Tensor:
        """Join keys and values along the width, (B, T, 2D), to store them."""
        return torch.cat([self.keys, self.values], dim=-1)

    @classmethod
    def unpack(cls, packed: Tensor, lengths: Tensor) -> "EncoderStates":
        """Undo ``pack``.

        Args:
            packed: (B, T, 2D), float; any padding.
            lengths: (B,), int.

        Raises:
            ValueError: If the width is odd.
        """
        if packed.size(-1) % 2:
            raise ValueError(
                f"packed encoder states have an even width, got {packed.size(-1)}"
            )
        keys, values = packed.chunk(2, dim=-1)
        return cls(keys, values, lengths.long())
