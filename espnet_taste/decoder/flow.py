"""Flow matching: units and a speaker -> log-mel frames, with guidance.

An ordinary differential equation carries noise to a mel spectrogram; ten Euler steps
solve it. Every step needs the velocity with and without conditions: both are rows of
one batch of 2B, so that the network runs once a step.

Symbols: B batch, S units, C mel channels, F mel frames, D width.

Source: CosyVoice-300M (arXiv:2407.05407); conditional flow matching after Matcha-TTS
(arXiv:2309.03199), classifier-free guidance (arXiv:2207.12598). Sizes and parameter
names are those of the released ``flow.*``.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.decoder.flow_encoder import FlowEncoder, LengthRegulator
from espnet_taste.decoder.flow_estimator import VelocityEstimator
from espnet_taste.layers.masked_norm import padding_mask


@dataclass(frozen=True)
class FlowConfig:
    """Hyper-parameters; the defaults are those of CosyVoice-300M.

    Raises:
        ValueError: If a number is out of its range.
    """

    num_units: int = 4096
    unit_rate_hz: int = 50
    speaker_dim: int = 192
    input_dim: int = 512  # width of a unit's embedding
    width: int = 512
    heads: int = 8
    feedforward: int = 2048
    layers: int = 6
    num_mels: int = 80
    sample_rate_hz: int = 22050
    hop_size: int = 256  # samples a mel frame
    regulator_convs: int = 4
    channels: tuple[int, ...] = (256, 256)
    mid_blocks: int = 12
    transformers: int = 4  # a stage of the estimator
    estimator_heads: int = 8
    head_dim: int = 64
    steps: int = 10
    guidance: float = 0.7

    def __post_init__(self) -> None:
        """Check the values that come from a YAML file."""
        fits = self.width % self.heads == 0 and self.width % 2 == 0
        if not fits or self.steps < 1 or not self.channels:
            raise ValueError(
                "a flow needs an even width that its heads divide, a step and a "
                f"resolution, got width {self.width}, heads {self.heads}, steps "
                f"{self.steps}, channels {self.channels}"
            )
        if not isinstance(self.unit_rate_hz, int) or self.unit_rate_hz < 1:
            raise ValueError(
                f"unit_rate_hz must be a whole number, got {self.unit_rate_hz!r}"
            )

    def frames(self, units: Tensor) -> Tensor:
        """Return how many mel frames numbers of units cover, int64, same shape."""
        return units * self.sample_rate_hz // (self.unit_rate_hz * self.hop_size)


class ConditionalFlow(nn.Module):
    """The velocity network and the solver around it.

    Args:
        config: Hyper-parameters.
    """

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        self.estimator = VelocityEstimator(
            config.num_mels,
            config.channels,
            mid_blocks=config.mid_blocks,
            transformers=config.transformers,
            heads=config.estimator_heads,
            head_dim=config.head_dim,
        )

    def times(self) -> list[float]:
        """Return the borders of the steps, 0 to 1: short steps first."""
        steps = self.config.steps
        return [1 - math.cos(math.pi / 2 * step / steps) for step in range(steps + 1)]

    def velocities(
        self, x: Tensor, conditions: Tensor, t: float, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Predict the velocity with and without conditions in one call.

        Args:
            x: State, (B, C, F), float.
            conditions: From ``stack_conditions``, (2B, 3C, F), float.
            t: Time in [0, 1].
            mask: As in ``VelocityEstimator.forward``, for 2B rows.

        Returns:
            With and without, each (B, C, F).
        """
        inputs = torch.cat([torch.cat([x, x]), conditions], dim=1)
        time = torch.full((1,), t, device=x.device, dtype=x.dtype)
        with_conditions, without = self.estimator(inputs, time, mask).chunk(2)
        return with_conditions, without

    def trajectory(
        self, noise: Tensor, mean: Tensor, speaker: Tensor, mask: Tensor | None
    ) -> Iterator[Tensor]:
        """Yield the state before every step and the final one.

        Args:
            noise: Start, (B, C, F), float.
            mean: Output of the length regulator, (B, C, F), float.
            speaker: Projected speaker, (B, C), float.
            mask: From ``padding_mask``; None without padding.
        """
        conditions = stack_conditions(mean, speaker)
        both = None if mask is None else torch.cat([mask, mask])
        guidance = self.config.guidance
        times = self.times()
        x = noise
        yield x
        for now, then in zip(times, times[1:]):
            conditioned, free = self.velocities(x, conditions, now, both)
            velocity = (1 + guidance) * conditioned - guidance * free
            x = x + (then - now) * velocity
            yield x


class FlowMatching(nn.Module):
    """Pretrained generator of mel frames; frozen, always in eval mode.

    Args:
        config: Hyper-parameters of the checkpoint.
    """

    def __init__(self, config: FlowConfig):
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.num_units, config.input_dim)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dim, config.num_mels)
        self.encoder = FlowEncoder(
            config.input_dim,
            config.width,
            config.heads,
            config.feedforward,
            config.layers,
        )
        self.encoder_proj = nn.Linear(config.width, config.num_mels)
        self.decoder = ConditionalFlow(config)
        self.length_regulator = LengthRegulator(config.num_mels, config.regulator_convs)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "FlowMatching":
        """Stay in eval mode whatever the model around asks for."""
        return super().train(False)

    def encode(self, units: Tensor, lengths: Tensor) -> Tensor:
        """Encode units, (B, S) int64 and (B,) int64 -> (B, S, D), float."""
        # Padding may hold anything; no valid unit is changed, see ``forward``.
        embedded = self.input_embedding(units.clamp(0, self.config.num_units - 1))
        return self.encoder(embedded, lengths)

    def project_speaker(self, speaker: Tensor) -> Tensor:
        """Project speaker embeddings of any norm, (B, speaker_dim) -> (B, C)."""
        return self.spk_embed_affine_layer(functional.normalize(speaker, dim=1))

    def forward(
        self, units: Tensor, lengths: Tensor, speaker: Tensor, noise: Tensor
    ) -> Tensor:
        """Generate mel frames.

        Args:
            units: (B, S), int64, 0..num_units - 1; anything on padding.
            lengths: Valid units, (B,), int64, each worth a frame at least.
            speaker: Speaker embeddings, (B, speaker_dim), float.
            noise: Standard normal start, (B, C, F), F the frames of the longest
                row; anything finite on padding.

        Returns:
            Log-mel frames, (B, C, F), float; meaningless on padding.

        Raises:
            ValueError: If a unit is unknown to the model.
        """
        self._check(units, lengths)
        frame_lengths = self.config.frames(lengths)
        mask = padding_mask(frame_lengths, noise.size(2), noise.dtype)
        projected = self.encoder_proj(self.encode(units, lengths))
        mean = self.length_regulator(projected, lengths, frame_lengths, mask)
        x = noise
        for x in self.decoder.trajectory(
            noise, mean, self.project_speaker(speaker), mask
        ):
            pass
        return x

    def _check(self, units: Tensor, lengths: Tensor) -> None:
        valid = torch.arange(units.size(1), device=units.device) < lengths[:, None]
        wrong = (units < 0) | (units >= self.config.num_units)
        if bool((wrong & valid).any()):
            raise ValueError(
                f"units must be in 0..{self.config.num_units - 1}, got "
                f"{int(units[wrong & valid][0])}; were they made by another extractor?"
            )


def stack_conditions(mean: Tensor, speaker: Tensor) -> Tensor:
    """Stack what the estimator sees beside its state, with and without conditions.

    Args:
        mean: (B, C, F), float.
        speaker: (B, C), float.

    Returns:
        (2B, 3C, F): mean, speaker and zeros for the prompt, which TASTE does not
        have; the second B rows are all zeros.
    """
    repeated = speaker[..., None].expand_as(mean)
    conditions = torch.cat([mean, repeated, torch.zeros_like(mean)], dim=1)
    return torch.cat([conditions, torch.zeros_like(conditions)])


def row_noise(
    generators: Sequence[torch.Generator], lengths: Sequence[int], channels: int
) -> Tensor:
    """Draw standard normal noise, every row from its own generator.

    Args:
        generators: One a row, on CPU.
        lengths: Steps T of every row.
        channels: Channels.

    Returns:
        (B, channels, longest T), float32; zeros on padding.
    """
    rows = [
        torch.randn(length, channels, generator=generator)
        for generator, length in zip(generators, lengths, strict=True)
    ]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True).transpose(1, 2)
