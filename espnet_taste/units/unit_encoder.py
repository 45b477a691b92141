"""Encoder states -> units: the learned half that extraction keeps.

Trained together with a unit-to-mel decoder (``tasks.unit_autoencoder``), the units
keep what the voice's sound needs; k-means classes keep what varies most, which costs
intelligibility at the same bitrate.

Symbols: B batch, T encoder frames, S units, E width of packed states, D width.

Source: vector-quantized autoencoder (arXiv:1711.00937) over frozen states.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.decoder.unit_to_mel import SpeakerBlock, step_mask
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.units.whisper_features import FRAME_RATE_HZ


@dataclass(frozen=True)
class UnitEncoding:
    """Units of a batch, and what training needs beside them."""

    units: Tensor  # (B, S), int64; IGNORE on padding
    embedded: Tensor  # (B, S, D), float, gradients pass straight through
    lengths: Tensor  # (B,), int64
    commitment: Tensor  # (), float; 0 in evaluation mode


class UnitEncoder(nn.Module):
    """Convolution blocks and one codebook over the states of a frozen encoder.

    Args:
        input_dim: Width E of the packed states (keys and values).
        num_units: Number of unit classes.
        frames_per_unit: Encoder frames that one unit stands for.
        width: Channels D; that of the decoder which is trained with it.
        blocks: Convolution blocks.
        kernel_size: Odd number of units a block's convolution sees.
        code_dim: Width in which the codebook lives.
        decay: Share of the old averages one update of the codebook keeps.
        dead_unit_threshold: Averaged count per step below which a class is given a
            new place.
    """

    def __init__(
        self,
        input_dim: int,
        num_units: int,
        *,
        frames_per_unit: int = 1,
        width: int = 256,
        blocks: int = 2,
        kernel_size: int = 5,
        code_dim: int = 32,
        decay: float = 0.98,
        dead_unit_threshold: float = 0.05,
    ):
        super().__init__()
        self.frames_per_unit = frames_per_unit
        self.input = nn.Linear(input_dim * frames_per_unit, width)
        self.blocks = nn.ModuleList(
            SpeakerBlock(width, None, kernel_size=kernel_size) for _ in range(blocks)
        )
        self.quantizer = ResidualVQ(
            width,
            code_dim,
            num_units,
            1,
            decay=decay,
            dead_code_threshold=dead_unit_threshold,
            straight_through="single",
        )
        # Nothing is learned yet that k-means could start from: all classes begin
        # dead, and the first batches give them their places.
        (codebook,) = self.quantizer.codebooks
        nn.init.normal_(codebook.embed)
        codebook.count.zero_()
        codebook.initialised.fill_(1.0)
        self.quantizer.load_state_dict(self.quantizer.state_dict())

    @property
    def num_units(self) -> int:
        """Number of unit classes."""
        return self.quantizer.codebook_size

    def forward(self, states: Tensor, lengths: Tensor) -> UnitEncoding:
        """Encode.

        Args:
            states: Output of ``centre_states``, (B, T, E), float; any padding.
            lengths: Valid frames, (B,), int64, at least ``frames_per_unit`` each.
        """
        batch, frames, _ = states.shape
        num_units = frames // self.frames_per_unit
        x = states[:, : num_units * self.frames_per_unit]
        x = self.input(x.reshape(batch, num_units, -1))
        lengths = lengths // self.frames_per_unit
        mask = step_mask(lengths, num_units)
        for block in self.blocks:
            x = block(x, mask)
        output = self.quantizer(x, mask[..., 0] > 0)
        return UnitEncoding(
            output.codes[..., 0], output.quantized, lengths, output.commitment.sum()
        )

    def codebook(self) -> Tensor:
        """Return the vectors that classes stand for, (num_units, code_dim), float32."""
        return self.quantizer.codebooks[0].embed.detach().clone()

    @torch.no_grad()
    def unit_embedding(self) -> Tensor:
        """Return what the decoder sees of every class, (num_units, D), float32."""
        classes = torch.arange(self.num_units, device=self.quantizer.num_steps.device)
        return self.quantizer.decode(classes[:, None])


def frames_per_unit(unit_rate_hz: float) -> int:
    """Return the encoder frames that one unit stands for.

    Raises:
        ValueError: If the rate does not divide 50 Hz.
    """
    frames = FRAME_RATE_HZ / unit_rate_hz
    if frames < 1 or frames != int(frames):
        raise ValueError(
            f"unit_rate_hz must be {FRAME_RATE_HZ} divided by a whole number, "
            f"got {unit_rate_hz:g}"
        )
    return int(frames)


def centre_states(states: Tensor) -> Tensor:
    """Bring an utterance's states to one scale and free them of its mean.

    Keys and values come from layers of different scale, and the mean over time is
    mostly speaker and channel, which the decoder is given anyway.

    Args:
        states: Packed keys and values of one utterance, (T, E), float, no padding.

    Returns:
        (T, E), float32.
    """
    halves = states.float().chunk(2, dim=-1)
    scaled = [functional.layer_norm(half, half.shape[-1:]) for half in halves]
    joined = torch.cat(scaled, dim=-1)
    return joined - joined.mean(dim=0)
