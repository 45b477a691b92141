"""Causal Transformer encoder with relative positions.

One class serves the text and TASTE encoders and the unit LM; they differ in their
activation and in the ReLU behind the input layer.

Symbols: N positions of a batch, D width.

Source: TASTE (arXiv:2504.07053), speech decoder; the blocks are those of ESPnet's
Conformer without convolution and of its Transformer, with every LayerNorm at
eps 1e-5 (ESPnet's own default is 1e-12).
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from espnet_taste.layers.attention_guide import AttentionGuide
from espnet_taste.layers.byte_dropout import ByteDropout
from espnet_taste.layers.relative_attention import (
    AttentionCache,
    CausalBlocks,
    QueryWeights,
    RelativeAttention,
    distance_table,
)

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}


class FeedForward(nn.Module):
    """Two linear layers with an activation and dropout between them."""

    def __init__(self, width: int, hidden: int, activation: str, dropout: float):
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = ByteDropout(dropout)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D) to (N, D)."""
        return self.w_2(self.dropout(self.activation(self.w_1(x))))


class EncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(
        self, width: int, heads: int, hidden: int, *, activation: str, dropout: float
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.self_attn = RelativeAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, activation, dropout)
        self.dropout = ByteDropout(dropout)

    def forward(
        self,
        x: Tensor,
        table: Tensor,
        blocks: CausalBlocks,
        cache: AttentionCache | None = None,
        guide: AttentionGuide | None = None,
    ) -> Tensor:
        """Map (N, D) to (N, D); arguments as in ``RelativeAttention.forward``."""
        # Converted once here, autocast would do it for q, k and v each.
        normed = self.norm1(x).to(compute_dtype(x))
        x = x + self.dropout(self.self_attn(normed, table, blocks, cache, guide))
        return x + self.dropout(self.feed_forward(self.norm2(x)))

    def step(
        self, x: Tensor, positions: Tensor, length: int, cache: AttentionCache
    ) -> Tensor:
        """Advance by one position; arguments as in ``RelativeAttention.step``."""
        x = x + self.self_attn.step(self.norm1(x), positions, length, cache)
        return x + self.feed_forward(self.norm2(x))


class CausalEncoder(nn.Module):
    """Encode rows so that a position depends on its row up to itself only.

    Args:
        input_dim: Width of the input.
        width: D.
        heads: Attention heads.
        feedforward: Hidden width of the feed-forward blocks.
        num_layers: Number of layers.
        activation: Activation of the feed-forward blocks.
        input_relu: Put a ReLU behind the input layer (the unit LM has one).
        dropout: Dropout of the input layer, of the scaled input and of the table of
            positions, inside the feed-forward blocks and before every residual
            addition; attention weights have none.
    """

    def __init__(
        self,
        input_dim: int,
        width: int,
        *,
        heads: int,
        feedforward: int,
        num_layers: int,
        activation: Literal["silu", "relu"] = "silu",
        input_relu: bool = False,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.width = width
        self.heads = heads
        input_layer = [
            nn.Linear(input_dim, width),
            nn.LayerNorm(width),
            ByteDropout(dropout),
        ]
        self.input_layer = nn.Sequential(*input_layer, *[nn.ReLU()] * input_relu)
        self.dropout = ByteDropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                width, heads, feedforward, activation=activation, dropout=dropout
            )
            for _ in range(num_layers)
        )
        self.after_norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        rows: Tensor,
        sizes: tuple[tuple[int, int], ...],
        caches: list[AttentionCache] | None = None,
        guide: AttentionGuide | None = None,
    ) -> Tensor:
        """Encode a batch of rows.

        Args:
            x: Input, (N, input_dim), float; anything finite on padding.
            rows: Row of every position, (N,), int64, negative on padding.
            sizes: Number and length of the blocks the positions fall into, see
                ``CausalBlocks``; no row crosses a block.
            caches: One cache a layer to keep keys and values in, or None.
            guide: What watches attention in training, or None.

        Returns:
            (N, D); meaningless on padding.

        Raises:
            ValueError: If the blocks do not cover the N positions.
        """
        x = self._embed(x)
        blocks = CausalBlocks.build(rows, sizes, compute_dtype(x))
        table = distance_table(blocks.longest, self.width, x.device)
        table = self.dropout(table.to(compute_dtype(x)))
        for index, layer in enumerate(self.layers):
            cache = None if caches is None else caches[index]
            watches = guide is not None and index in guide.layers
            x = layer(x, table, blocks, cache, guide if watches else None)
        return self.after_norm(x)

    def step(
        self, x: Tensor, positions: Tensor, length: int, caches: list[AttentionCache]
    ) -> Tensor:
        """Encode one more position of every row, in eval mode.

        Args:
            x: Input, (B, input_dim), float.
            positions: Place of the new position in its row, (B,), int64.
            length: More than the largest place; the slots of the caches in use.
            caches: Caches of the earlier positions; the new one is added.

        Returns:
            (B, D), equal to the last position of ``forward`` over the whole row.
        """
        x = self._embed(x)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = layer.step(x, positions, length, cache)
        return self.after_norm(x)

    def new_caches(self, batch: int, length: int) -> list[AttentionCache]:
        """Reserve room for B rows of up to T positions, one cache a layer."""
        weight = self.after_norm.weight
        shape = (batch, self.heads, length, self.width // self.heads)
        table = distance_table(length - 1, self.width, weight.device).flip(0)
        dtype = compute_dtype(weight)
        return [
            AttentionCache(
                torch.zeros(shape, dtype=dtype, device=weight.device),
                torch.zeros(shape, dtype=dtype, device=weight.device),
                layer.self_attn.project_table(table.to(weight.dtype)),
                QueryWeights(*(t.to(dtype) for t in layer.self_attn.query_weights())),
            )
            for layer in self.layers
        ]

    def _embed(self, x: Tensor) -> Tensor:
        x = self.input_layer(x)
        # Under autocast the residual sum would be kept in bfloat16, whose steps at
        # this scale are as large as what a layer adds: keep it in the parameters' type.
        x = x.to(self.after_norm.weight.dtype)
        return self.dropout(x * math.sqrt(self.width))


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the type in which matrix products of ``x`` run."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype
