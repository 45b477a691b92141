"""The log-mel spectrogram that HiFi-GAN generators speak.

Symbols: B batch, N samples, M frames, C mel channels.

Source: HiFi-GAN (arXiv:2010.05646), released V1 configuration: Slaney mels of the
magnitude spectrum, reflect padding of (window - hop) / 2 samples, natural log.
"""

from dataclasses import dataclass

import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn
from torch.nn import functional

# Added under the square root: the gradient of a silent bin stays finite, and the
# released generators were trained with it.
MAGNITUDE_EPS = 1e-9
LOG_FLOOR = 1e-5


@dataclass(frozen=True)
class MelConfig:
    """Settings of a log-mel spectrogram."""

    sample_rate_hz: int = 22050
    fft_size: int = 1024
    window_size: int = 1024  # samples
    hop_size: int = 256  # samples
    num_mels: int = 80
    fmin_hz: float = 0.0
    fmax_hz: float = 8000.0

    @property
    def frame_rate_hz(self) -> float:
        """Frames per second."""
        return self.sample_rate_hz / self.hop_size


class LogMel(nn.Module):
    """Turn waveforms into the log-mel frames of a HiFi-GAN generator.

    Frame ``i`` is centred on sample ``(i + 0.5) * hop_size``, and N samples give
    ``N // hop_size`` frames.

    Args:
        config: Settings; they must be those the generator was trained with.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        filters = audio_functional.melscale_fbanks(
            config.fft_size // 2 + 1,
            f_min=config.fmin_hz,
            f_max=config.fmax_hz,
            n_mels=config.num_mels,
            sample_rate=config.sample_rate_hz,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", filters, persistent=False)  # (F, C)
        window = torch.hann_window(config.window_size)
        self.register_buffer("window", window, persistent=False)

    def forward(self, speech: Tensor) -> Tensor:
        """Return log-mel frames.

        Args:
            speech: Waveforms at the generator's rate, (B, N), float32, -1..1.

        Returns:
            Natural-log mel magnitudes, (B, M, C), float32.

        Raises:
            ValueError: If the waveform is shorter than the padding needs.
        """
        margin = (self.config.fft_size - self.config.hop_size) // 2
        if speech.size(-1) <= margin:
            raise ValueError(
                f"a log-mel spectrogram needs more than {margin} samples, "
                f"got {speech.size(-1)}"
            )
        # STFT and logarithm lose the quiet channels in half precision.
        with torch.autocast(speech.device.type, enabled=False):
            padded = functional.pad(speech.float()[:, None], (margin,) * 2, "reflect")
            spectrum = torch.stft(
                padded[:, 0],
                self.config.fft_size,
                self.config.hop_size,
                self.config.window_size,
                window=self.window,
                center=False,
                return_complex=True,
            )
            power = spectrum.real.square() + spectrum.imag.square()
            magnitude = (power + MAGNITUDE_EPS).sqrt()
            mels = magnitude.transpose(1, 2) @ self.filters
            return mels.clamp(min=LOG_FLOOR).log()


def resample(speech: Tensor, source_hz: int, target_hz: int) -> Tensor:
    """Resample waveforms, (..., N) -> (..., N * target // source rounded up)."""
    if source_hz == target_hz:
        return speech
    return audio_functional.resample(speech, source_hz, target_hz)
