"""HiFT vocoder: log-mel frames -> waveform by way of a short-time spectrum.

A convolutional network that is driven by a harmonic source predicts magnitude and
phase of short frames; an inverse transform makes the waveform. Masks keep padding
away from a row's valid samples: it sounds as it would alone.

Symbols: B rows, C mel channels, M mel frames, N samples, K harmonics with the
fundamental.

Source: HiFTNet (arXiv:2309.09493) as CosyVoice-300M (arXiv:2407.05407) uses it.
Sizes and parameter names are those of the released ``hift.*``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.decoder.hift_layers import (
    NormedConv,
    NormedUpsampling,
    SnakeBlock,
    inverse_stft,
    stft,
)
from espnet_taste.decoder.hift_source import F0Predictor, HarmonicSource
from espnet_taste.layers.masked_norm import masked, padding_mask


@dataclass(frozen=True)
class HiftConfig:
    """Hyper-parameters; the defaults are those of CosyVoice-300M.

    Raises:
        ValueError: If channels cannot be halved at every upsampling.
    """

    num_mels: int = 80
    channels: int = 512
    f0_channels: int = 512
    sample_rate_hz: int = 22050
    harmonics: int = 8
    sine_amplitude: float = 0.1
    sine_noise: float = 0.003
    voiced_above_hz: float = 10.0
    upsample_rates: tuple[int, ...] = (8, 8)
    upsample_kernel_sizes: tuple[int, ...] = (16, 16)
    fft_size: int = 16
    fft_hop: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilations: tuple[int, ...] = (1, 3, 5)
    source_kernel_sizes: tuple[int, ...] = (7, 11)  # one an upsampling
    source_dilations: tuple[int, ...] = (1, 3, 5)
    slope: float = 0.1
    last_slope: float = 0.01  # torch's default, before the last convolution
    audio_limit: float = 0.99
    magnitude_limit: float = 100.0

    def __post_init__(self) -> None:
        """Check the values that come from a YAML file."""
        stages = {
            len(self.upsample_rates),
            len(self.upsample_kernel_sizes),
            len(self.source_kernel_sizes),
        }
        if len(stages) != 1 or self.channels % 2 ** min(stages):
            raise ValueError(
                "HiFT needs one kernel and one source kernel for every upsampling "
                f"rate and channels that halve as often, got {self}"
            )

    @property
    def hop_size(self) -> int:
        """Samples a mel frame."""
        return math.prod(self.upsample_rates) * self.fft_hop


class HiftGenerator(nn.Module):
    """Pretrained vocoder; frozen, always in eval mode.

    Args:
        config: Hyper-parameters of the checkpoint.
    """

    def __init__(self, config: HiftConfig):
        super().__init__()
        self.config = config
        self.m_source = HarmonicSource(
            config.harmonics,
            config.sample_rate_hz,
            amplitude=config.sine_amplitude,
            noise=config.sine_noise,
            voiced_above_hz=config.voiced_above_hz,
        )
        self.conv_pre = NormedConv(config.num_mels, config.channels, 7)
        self.ups = nn.ModuleList()
        self.source_downs = nn.ModuleList()
        self.source_resblocks = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for stage in range(len(config.upsample_rates)):
            self._add_stage(stage)
        channels = config.channels >> len(config.upsample_rates)
        self.conv_post = NormedConv(channels, config.fft_size + 2, 7)
        self.f0_predictor = F0Predictor(config.num_mels, config.f0_channels)
        self.requires_grad_(False)
        self.eval()

    def _add_stage(self, stage: int) -> None:
        config = self.config
        channels = config.channels >> (stage + 1)
        rate = config.upsample_rates[stage]
        kernel = config.upsample_kernel_sizes[stage]
        self.ups.append(NormedUpsampling(2 * channels, channels, kernel, rate))
        # The source has the spectrum's rate; earlier stages run slower.
        down = math.prod(config.upsample_rates[stage + 1 :])
        shape = (2 * down, down, down // 2) if down > 1 else (1, 1, 0)
        self.source_downs.append(nn.Conv1d(config.fft_size + 2, channels, *shape))
        kernel = config.source_kernel_sizes[stage]
        block = SnakeBlock(channels, kernel, config.source_dilations)
        self.source_resblocks.append(block)
        self.resblocks.extend(
            SnakeBlock(channels, kernel, config.resblock_dilations)
            for kernel in config.resblock_kernel_sizes
        )

    def train(self, mode: bool = True) -> "HiftGenerator":
        """Stay in eval mode whatever the model around asks for."""
        return super().train(False)

    def forward(
        self, mel: Tensor, lengths: Tensor, phase: Tensor, noise: Tensor
    ) -> Tensor:
        """Generate waveforms.

        Args:
            mel: Log-mel frames, (B, C, M), float; anything finite on padding.
            lengths: Valid frames, (B,), int64, at least 1.
            phase: Start of every sine, radians, (B, K), float.
            noise: Standard normal, (B, K, N), float; anything finite on padding.

        Returns:
            (B, N), N = M * hop_size, within the audio limit; meaningless on padding.
        """
        f0 = self.predict_f0(mel, lengths)
        f0 = f0.repeat_interleave(self.config.hop_size, dim=1)
        return self.decode(mel, lengths, self.m_source(f0, phase, noise))

    def predict_f0(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Predict Hz, (B, M), of mel frames; meaningless on padding."""
        return self.f0_predictor(mel, padding_mask(lengths, mel.size(2), mel.dtype))

    def decode(self, mel: Tensor, lengths: Tensor, source: Tensor) -> Tensor:
        """Generate waveforms, (B, N), from a given excitation, (B, N)."""
        config = self.config
        spectrum = self.source_spectrum(source, lengths)
        frames = lengths * math.prod(config.upsample_rates) + 1
        mask = padding_mask(frames, spectrum.size(2), mel.dtype)
        output = self.predict_spectrum(mel, lengths, masked(spectrum, mask))
        log_magnitude, phase = output.split(config.fft_size // 2 + 1, dim=1)
        magnitude = log_magnitude.exp().clamp(max=config.magnitude_limit)
        speech = inverse_stft(magnitude, phase.sin(), mask, config.fft_hop)
        return speech.clamp(-config.audio_limit, config.audio_limit)

    def source_spectrum(self, source: Tensor, lengths: Tensor) -> Tensor:
        """Transform an excitation, (B, N) -> (B, fft_size + 2, N / fft_hop + 1)."""
        config = self.config
        samples = lengths * config.hop_size
        return stft(source, samples, config.fft_size, config.fft_hop)

    def predict_spectrum(self, mel: Tensor, lengths: Tensor, source: Tensor) -> Tensor:
        """Run the network.

        Args:
            mel: (B, C, M), float.
            lengths: Valid frames, (B,), int64.
            source: Spectrum of the excitation, zeros on padding,
                (B, fft_size + 2, T), float.

        Returns:
            Log magnitudes, then phases before their sine, (B, fft_size + 2, T).
        """
        config = self.config
        mask = padding_mask(lengths, mel.size(2), mel.dtype)
        x = self.conv_pre(masked(mel, mask))
        kinds = len(config.resblock_kernel_sizes)
        for stage, up in enumerate(self.ups):
            x = up(masked(functional.leaky_relu(x, config.slope), mask))
            lengths = lengths * config.upsample_rates[stage]
            if stage == len(self.ups) - 1:
                x = functional.pad(x, (1, 0), "reflect")
                lengths = lengths + 1
            mask = padding_mask(lengths, x.size(2), x.dtype)
            driven = self.source_downs[stage](source)
            x = x + self.source_resblocks[stage](driven, mask)
            blocks = self.resblocks[stage * kinds : (stage + 1) * kinds]
            x = sum(block(x, mask) for block in blocks) / kinds
        x = masked(functional.leaky_relu(x, config.last_slope), mask)
        return self.conv_post(x)


def row_draws(
    generators: Sequence[torch.Generator], samples: Sequence[int], num_sines: int
) -> tuple[Tensor, Tensor]:
    """Draw start phases and noise of the source, every row from its own generator.

    Args:
        generators: One a row, on CPU.
        samples: Samples of every row.
        num_sines: K.

    Returns:
        Phases, uniform in -pi..pi, (B, K), and standard normal noise, (B, K, N);
        float32, zeros on padding.
    """
    phases, noises = [], []
    for generator, count in zip(generators, samples, strict=True):
        uniform = torch.rand(num_sines, generator=generator)
        phases.append((2 * uniform - 1) * math.pi)
        noises.append(torch.randn(count, num_sines, generator=generator))
    noise = nn.utils.rnn.pad_sequence(noises, batch_first=True)
    return torch.stack(phases), noise.transpose(1, 2)
