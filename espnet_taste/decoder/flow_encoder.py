"""Encoder of the flow's units: full context, relative positions, no dropout.

The blocks are those of the causal encoders with the other parameter names of the
released file and with keys on both sides of a query. The released generator was
left in training mode, with dropout in this encoder; here there is none to leave on.

Symbols: B batch, S units, D width, H heads, dk = D / H.

Source: TASTE (arXiv:2504.07053), voice generator; Transformer-XL (arXiv:1901.02860)
for the relative positions, with the numbers of ESPnet's attention. The length
regulator is that of CosyVoice (arXiv:2407.05407).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.layers.causal_encoder import FeedForward
from espnet_taste.layers.masked_norm import MaskedGroupNorm, masked


def two_sided_table(farthest: int, width: int, device: torch.device) -> Tensor:
    """Return the sinusoids of the distances farthest, ..., 0, ..., -farthest.

    Args:
        farthest: Largest distance.
        width: D, even.
        device: Where the table shall lie.

    Returns:
        (2 * farthest + 1, D), float32; even channels are sines, odd ones cosines.
    """
    # On the CPU: not every device has float64.
    wide = {"dtype": torch.float64, "device": "cpu"}
    distances = torch.arange(farthest, -farthest - 1, -1, **wide)
    channels = torch.arange(0, width, 2, **wide)
    angles = distances[:, None] * 10000.0 ** (-channels / width)
    table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return table.float().to(device)


class FullRelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions to both sides.

    Args:
        width: D.
        heads: H, a divisor of D.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, width // heads))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, width // heads))

    def forward(self, x: Tensor, table: Tensor, hidden: Tensor) -> Tensor:
        """Attend.

        Args:
            x: (B, S, D), float.
            table: From ``two_sided_table`` for the farthest distance S - 1.
            hidden: True where a key is padding, (B, 1, 1, S), bool.

        Returns:
            (B, S, D).
        """
        queries, keys, values = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        scale = keys.size(-1) ** -0.5
        distances = self.linear_pos(table).unflatten(1, (self.heads, -1))
        positional = (queries + self.pos_bias_v[:, None]) * scale
        bias = by_distance(positional @ distances.permute(1, 2, 0))
        mixed = functional.scaled_dot_product_attention(
            queries + self.pos_bias_u[:, None],
            keys,
            values,
            attn_mask=bias.masked_fill(hidden, float("-inf")),
            scale=scale,
        )
        return self.linear_out(mixed.transpose(1, 2).flatten(2))


def by_distance(scores: Tensor) -> Tensor:
    """Read scores of distances at the distance of every query and key.

    Args:
        scores: Column m holds distance S - 1 - m, (B, H, S, 2 S - 1), contiguous.

    Returns:
        Element i, j holds distance i - j, (B, H, S, S), a view.
    """
    batch, heads, size, columns = scores.shape
    # Row i wants the columns from S - 1 - i on: one element less a row.
    strides = (heads * size * columns, size * columns, columns - 1, 1)
    return scores.as_strided((batch, heads, size, size), strides, size - 1)


class FlowEncoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm_mha = nn.LayerNorm(width)
        self.self_attn = FullRelativeAttention(width, heads)
        self.norm_ff = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, "silu", 0.0)

    def forward(self, x: Tensor, table: Tensor, hidden: Tensor) -> Tensor:
        """Keep the shape, (B, S, D); see ``FullRelativeAttention.forward``."""
        x = x + self.self_attn(self.norm_mha(x), table, hidden)
        return x + self.feed_forward(self.norm_ff(x))


class FlowEncoder(nn.Module):
    """Encode unit embeddings; every position sees its whole row.

    Args:
        input_dim: Width of the input.
        width: D.
        heads: H.
        feedforward: Hidden width of the feed-forward blocks.
        num_layers: Number of layers.
    """

    def __init__(
        self, input_dim: int, width: int, heads: int, feedforward: int, num_layers: int
    ):
        super().__init__()
        self.width = width
        layer = nn.Sequential(nn.Linear(input_dim, width), nn.LayerNorm(width))
        self.embed = nn.ModuleDict({"out": layer})
        self.encoders = nn.ModuleList(
            FlowEncoderLayer(width, heads, feedforward) for _ in range(num_layers)
        )
        self.after_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Encode.

        Args:
            x: (B, S, input_dim), float; anything finite on padding.
            lengths: Valid units, (B,), int64, at least 1.

        Returns:
            (B, S, D), float; meaningless on padding.
        """
        x = self.embed["out"](x) * math.sqrt(self.width)
        positions = torch.arange(x.size(1), device=x.device)
        hidden = (positions >= lengths[:, None])[:, None, None]
        table = two_sided_table(x.size(1) - 1, self.width, x.device).to(x.dtype)
        for layer in self.encoders:
            x = layer(x, table, hidden)
        return self.after_norm(x)


class LengthRegulator(nn.Module):
    """Stretch units to mel frames and smooth them.

    Args:
        channels: Mel channels.
        num_convs: Convolutions before the last one, which has kernel 1.
        kernel_size: Odd kernel of those.
    """

    def __init__(self, channels: int, num_convs: int = 4, kernel_size: int = 3):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            conv = nn.Conv1d(channels, channels, kernel_size, padding=kernel_size // 2)
            layers += [conv, MaskedGroupNorm(1, channels), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(channels, channels, 1))

    def forward(
        self, x: Tensor, lengths: Tensor, frame_lengths: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Stretch every row from its units to its frames.

        Args:
            x: (B, S, channels), float.
            lengths: Valid units, (B,), int64, at least 1.
            frame_lengths: Valid frames, (B,), int64, at least 1.
            mask: From ``padding_mask`` for the frames.

        Returns:
            (B, channels, F), float; meaningless on padding.
        """
        places = nearest_places(lengths, frame_lengths)
        rows = torch.arange(len(x), device=x.device)[:, None]
        x = x[rows, places].transpose(1, 2)
        for layer in self.model:
            if isinstance(layer, MaskedGroupNorm):
                x = layer(x, mask)
            else:
                x = layer(masked(x, mask))
        return x


def nearest_places(lengths: Tensor, frame_lengths: Tensor) -> Tensor:
    """Return the unit that stands for every frame, (B, F), int64.

    Frame i reads unit floor(i * S / F), in the float32 of torch's "nearest".
    """
    frames = torch.arange(int(frame_lengths.max()), device=lengths.device)
    ratio = lengths.float() / frame_lengths.float()
    places = (frames.float() * ratio[:, None]).long()
    return torch.minimum(places, lengths[:, None] - 1)
