"""Log-mel frames -> waveform without any weights: the last resort.

Understandable but metallic; it serves where no HiFi-GAN weights can be had.
"""

import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn

from espnet_taste.decoder.mel import LogMel, MelConfig


class GriffinLim(nn.Module):
    """Invert the mel filters by least squares and find phases by iteration.

    Args:
        mel: Settings of the frames.
        num_iterations: Phase iterations; more sound better and take longer.
    """

    def __init__(self, mel: MelConfig | None = None, num_iterations: int = 32):
        super().__init__()
        self.mel = mel or MelConfig()
        self.num_iterations = num_iterations
        log_mel = LogMel(self.mel)
        self.register_buffer("window", log_mel.window, persistent=False)
        inverse = torch.linalg.pinv(log_mel.filters)  # (C, F)
        self.register_buffer("inverse", inverse, persistent=False)

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveforms."""
        return self.mel.sample_rate_hz

    @torch.no_grad()
    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Make waveforms, deterministic: the phases start at zero.

        Args:
            mel: Log-mel frames, (B, M, C), float.
            lengths: Valid frames per row, (B,), int64; None if all are.

        Returns:
            Waveforms, (B, M * hop_size); zeros past a row's length.
        """
        counts = [mel.size(1)] * len(mel) if lengths is None else lengths.tolist()
        speech = mel.new_zeros(len(mel), mel.size(1) * self.mel.hop_size)
        # torchaudio takes float32 alone, whatever the surroundings compute in.
        with torch.autocast(mel.device.type, enabled=False):
            for row, (frames, count) in enumerate(zip(mel, counts, strict=True)):
                if count:
                    waveform = self._invert(frames[:count])
                    speech[row, : len(waveform)] = waveform
        return speech

    def _invert(self, frames: Tensor) -> Tensor:
        num_samples = len(frames) * self.mel.hop_size
        magnitude = (frames.float().exp() @ self.inverse).clamp(min=0.0)
        # The transform reflects half a window at both ends, of more samples than that.
        fewest = self.mel.fft_size // 2 // self.mel.hop_size + 1
        # One frame more: the inverse transform pads half a window at both ends.
        repeats = max(fewest - len(frames), 0) + 1
        magnitude = torch.cat([magnitude, magnitude[-1:].expand(repeats, -1)])
        waveform = audio_functional.griffinlim(
            magnitude.T,
            self.window,
            self.mel.fft_size,
            self.mel.hop_size,
            self.mel.window_size,
            power=1.0,
            n_iter=self.num_iterations,
            momentum=0.99,
            length=(len(magnitude) - 1) * self.mel.hop_size,
            rand_init=False,
        )
        return waveform[:num_samples].clamp(-1.0, 1.0)
