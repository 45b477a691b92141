"""Velocity of the flow: a U-Net of residual convolutions and transformer blocks.

Padding is masked before every convolution, in every normalisation over time and in
attention; the released code adds its mask to the attention scores instead, which
only one row at a time survives.

Symbols: B rows, C channels, T steps at the resolution of a stage, E width of the
time embedding.

Source: CosyVoice (arXiv:2407.05407) after Matcha-TTS (arXiv:2309.03199); sizes and
parameter names are those of the released ``flow.decoder.estimator``.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.layers.masked_norm import MaskedGroupNorm, masked

TIME_SCALE = 1000.0
NORM_GROUPS = 8


class TimeEmbedding(nn.Module):
    """Sinusoids of the time in [0, 1], then two linear layers."""

    def __init__(self, input_dim: int, width: int):
        super().__init__()
        self.linear_1 = nn.Linear(input_dim, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        """Embed times, (B,) -> (B, E)."""
        half = self.linear_1.in_features // 2
        steps = torch.arange(half, device=t.device, dtype=t.dtype)
        rates = torch.exp(steps * (-math.log(10000.0) / (half - 1)))
        angles = TIME_SCALE * t[:, None] * rates
        sinusoids = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return self.linear_2(functional.silu(self.linear_1(sinusoids)))


class ConvBlock(nn.Module):
    """Convolution, group normalisation and Mish."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        conv = nn.Conv1d(inputs, outputs, 3, padding=1)
        norm = MaskedGroupNorm(NORM_GROUPS, outputs)
        self.block = nn.ModuleList([conv, norm])

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        conv, norm = self.block
        return functional.mish(norm(conv(masked(x, mask)), mask))


class ResNetBlock(nn.Module):
    """Two convolution blocks with the time between them, and a residual."""

    def __init__(self, inputs: int, outputs: int, time_width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_width, outputs))
        self.block1 = ConvBlock(inputs, outputs)
        self.block2 = ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, inputs, T) and times (B or 1, E) to (B, outputs, T)."""
        hidden = self.block1(x, mask) + self.mlp(time)[..., None]
        return self.block2(hidden, mask) + self.res_conv(x)


class Attention(nn.Module):
    """Multi-head self-attention without positions."""

    def __init__(self, channels: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        inner = heads * head_dim
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_k = nn.Linear(channels, inner, bias=False)
        self.to_v = nn.Linear(channels, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Keep the shape, (B, T, C); ``visible`` is (B, 1, 1, T), bool, or None."""
        queries, keys, values = (
            linear(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible
        )
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class GeluLayer(nn.Module):
    """Linear layer and exact GELU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        return functional.gelu(self.proj(x))


class FeedForward(nn.Module):
    """Hidden layer four times as wide."""

    def __init__(self, channels: int):
        super().__init__()
        # Place 1 is dropout's in the released file, which has no parameters.
        self.net = nn.Sequential(
            GeluLayer(channels, 4 * channels),
            nn.Identity(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, (B, T, C)."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual connection."""

    def __init__(self, channels: int, heads: int, head_dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, heads, head_dim)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """Keep the shape, (B, T, C); ``visible`` as in ``Attention.forward``."""
        x = x + self.attn1(self.norm1(x), visible)
        return x + self.ff(self.norm3(x))


class HalveTime(nn.Module):
    """Convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T / 2 rounded up)."""
        return self.conv(x)


class DoubleTime(nn.Module):
    """Transposed convolution of stride 2."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, 2 T)."""
        return self.conv(x)


class VelocityEstimator(nn.Module):
    """Predict the velocity of a mel spectrogram under way from noise to speech.

    Args:
        num_mels: Mel channels.
        channels: Channels of each resolution, finest first.
        mid_blocks: Stages at the coarsest resolution.
        transformers: Transformer blocks a stage.
        heads: Attention heads.
        head_dim: Channels of a head.
    """

    def __init__(
        self,
        num_mels: int = 80,
        channels: tuple[int, ...] = (256, 256),
        *,
        mid_blocks: int = 12,
        transformers: int = 4,
        heads: int = 8,
        head_dim: int = 64,
    ):
        super().__init__()
        time_width = 4 * channels[0]
        self.time_mlp = TimeEmbedding(4 * num_mels, time_width)

        def stage(inputs: int, outputs: int, *resample: nn.Module) -> nn.ModuleList:
            blocks = nn.ModuleList(
                TransformerBlock(outputs, heads, head_dim) for _ in range(transformers)
            )
            resnet = ResNetBlock(inputs, outputs, time_width)
            return nn.ModuleList([resnet, blocks, *resample])

        ways = list(zip((4 * num_mels, *channels), channels))
        self.down_blocks = nn.ModuleList(
            stage(inputs, outputs, self._resample(HalveTime, outputs, last))
            for last, (inputs, outputs) in _with_last(ways)
        )
        self.mid_blocks = nn.ModuleList(
            stage(channels[-1], channels[-1]) for _ in range(mid_blocks)
        )
        back = channels[::-1]
        ways = list(zip(back, (*back[1:], channels[0])))
        self.up_blocks = nn.ModuleList(
            stage(2 * inputs, outputs, self._resample(DoubleTime, outputs, last))
            for last, (inputs, outputs) in _with_last(ways)
        )
        self.final_block = ConvBlock(channels[0], channels[0])
        self.final_proj = nn.Conv1d(channels[0], num_mels, 1)

    @staticmethod
    def _resample(kind: type[nn.Module], channels: int, last: bool) -> nn.Module:
        return nn.Conv1d(channels, channels, 3, padding=1) if last else kind(channels)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor | None = None) -> Tensor:
        """Predict the velocity.

        Args:
            x: State, mean, speaker and condition on top of one another,
                (B, 4 * num_mels, T), float; anything finite on padding.
            t: Times in [0, 1], (B,) or (1,), float.
            mask: 1 on valid frames, (B, 1, T), float; None if all are.

        Returns:
            (B, num_mels, T), float; zeros on padding.
        """
        time = self.time_mlp(t)
        passed: list[tuple[Tensor, Tensor | None]] = []
        masks = mask
        for resnet, blocks, resample in self.down_blocks:
            x = _run(x, time, masks, resnet, blocks)
            passed.append((x, masks))
            x = resample(masked(x, masks))
            if masks is not None and isinstance(resample, HalveTime):
                masks = masks[..., ::2]
        for resnet, blocks in self.mid_blocks:
            x = _run(x, time, masks, resnet, blocks)
        for resnet, blocks, resample in self.up_blocks:
            earlier, masks = passed.pop()
            x = torch.cat([x[..., : earlier.size(-1)], earlier], dim=1)
            x = _run(x, time, masks, resnet, blocks)
            x = resample(masked(x, masks))
        x = self.final_block(x, mask)
        return masked(self.final_proj(x), mask)


def _with_last(ways: list[tuple[int, int]]) -> list[tuple[bool, tuple[int, int]]]:
    """Pair every stage with whether it is the last, which keeps its resolution."""
    return [(number == len(ways) - 1, way) for number, way in enumerate(ways)]


def _run(
    x: Tensor,
    time: Tensor,
    mask: Tensor | None,
    resnet: ResNetBlock,
    blocks: nn.ModuleList,
) -> Tensor:
    """Run one stage up to its change of resolution, (B, C, T) -> (B, C', T)."""
    x = resnet(x, time, mask).transpose(1, 2)
    visible = None if mask is None else mask[:, None] > 0
    for block in blocks:
        x = block(x, visible)
    return x.transpose(1, 2)
