"""Excitation of HiFT: fundamental frequency from mel frames, harmonics from that.

Symbols: B rows, C mel channels, M mel frames, N samples, K harmonics with the
fundamental.

Source: neural source-filter (arXiv:1904.12088) in HiFTNet (arXiv:2309.09493), as
CosyVoice-300M uses it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.decoder.hift_layers import NormedConv
from espnet_taste.layers.masked_norm import masked
from espnet_taste.layers.precision import in_float64

NUM_CONVS = 5
UNVOICED_NOISE_SHARE = 3.0  # noise in unvoiced samples: a third of a sine's amplitude


class F0Predictor(nn.Module):
    """Predict the fundamental frequency of every mel frame."""

    def __init__(self, num_mels: int, channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(NUM_CONVS):
            inputs = channels if number else num_mels
            layers += [NormedConv(inputs, channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)

    def forward(self, mel: Tensor, mask: Tensor | None) -> Tensor:
        """Predict.

        Args:
            mel: Log-mel frames, (B, C, M), float.
            mask: 1 on valid frames, (B, 1, M), float; None if all are.

        Returns:
            Hz, (B, M), float, not negative; meaningless on padding.
        """
        x = mel
        for layer in self.condnet:
            x = layer(masked(x, mask))
        return self.classifier(x.transpose(1, 2))[..., 0].abs()


class HarmonicSource(nn.Module):
    """Sum sines at the multiples of the fundamental, and noise.

    Args:
        harmonics: Harmonics above the fundamental.
        sample_rate_hz: Rate of the waveform.
        amplitude: Of a sine.
        noise: Standard deviation of the noise in voiced samples.
        voiced_above_hz: Fundamental frequency from which on a sample is voiced.
    """

    def __init__(
        self,
        harmonics: int,
        sample_rate_hz: int,
        *,
        amplitude: float,
        noise: float,
        voiced_above_hz: float,
    ):
        super().__init__()
        self.sample_rate_hz = sample_rate_hz
        self.amplitude = amplitude
        self.noise = noise
        self.voiced_above_hz = voiced_above_hz
        self.l_linear = nn.Linear(harmonics + 1, 1)

    @property
    def num_sines(self) -> int:
        """K."""
        return self.l_linear.in_features

    def voiced(self, f0: Tensor) -> Tensor:
        """Tell which samples are voiced, (B, N) Hz -> (B, N), 1 or 0, float."""
        return (f0 > self.voiced_above_hz).to(f0.dtype)

    def sines(self, f0: Tensor, phase: Tensor, noise: Tensor) -> Tensor:
        """Make the sines with their noise.

        Args:
            f0: Of every sample, Hz, (B, N), float.
            phase: Start of every sine in radians, (B, K), float; the fundamental's
                is taken as 0.
            noise: Standard normal, (B, K, N), float.

        Returns:
            (B, K, N), float.
        """
        # In float32 the ninth sine is 1/500 cycle off after 30 s, and by how much
        # depends on the batch that sums it up.
        cycles = (in_float64(f0) / self.sample_rate_hz).cumsum(1)
        multiples = torch.arange(1, self.num_sines + 1, device=cycles.device)
        turns = (cycles[:, None] * multiples[:, None]).remainder(1.0).to(f0)
        start = functional.pad(phase[:, 1:], (1, 0))[..., None]
        voiced = self.voiced(f0)[:, None]
        unvoiced_noise = self.amplitude / UNVOICED_NOISE_SHARE
        level = voiced * self.noise + (1 - voiced) * unvoiced_noise
        waves = self.amplitude * torch.sin(2 * math.pi * turns + start)
        return waves * voiced + level * noise

    def forward(self, f0: Tensor, phase: Tensor, noise: Tensor) -> Tensor:
        """Make the excitation, (B, N), -1..1; arguments as in ``sines``."""
        sines = self.sines(f0, phase, noise)
        return self.l_linear(sines.transpose(1, 2))[..., 0].tanh()
