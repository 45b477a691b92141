"""Whisper's log-mel spectrogram, batched and on the device of the speech.

Source: Whisper (arXiv:2212.04356), section 2.2; equal to transformers'
``WhisperFeatureExtractor``, which computes on the host.
"""

import torch
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from espnet_taste.types import SAMPLE_RATE_HZ

FFT_SIZE = 400  # 25 ms
HOP_SAMPLES = 160  # 10 ms


def mel_filters(num_bins: int) -> Tensor:
    """Return Whisper's filters, (FFT_SIZE // 2 + 1, num_bins), float32."""
    filters = mel_filter_bank(
        num_frequency_bins=1 + FFT_SIZE // 2,
        num_mel_filters=num_bins,
        min_frequency=0.0,
        max_frequency=8000.0,
        sampling_rate=SAMPLE_RATE_HZ,
        norm="slaney",
        mel_scale="slaney",
    )
    return torch.from_numpy(filters).float()


def log_mel(speech: Tensor, filters: Tensor) -> Tensor:
    """Compute Whisper's log-mel spectrogram.

    The floor lies 8 (80 dB) under the loudest bin of the whole row, so a row must
    hold one utterance and nothing but zeros behind it.

    Args:
        speech: (B, N), float, 16 kHz, -1..1, N a multiple of the hop.
        filters: What ``mel_filters`` returns, on the same device.

    Returns:
        (B, N // HOP_SAMPLES, num_bins), float32.
    """
    with torch.autocast(speech.device.type, enabled=False):
        spectrum = torch.stft(
            speech.float(),
            FFT_SIZE,
            HOP_SAMPLES,
            window=torch.hann_window(FFT_SIZE, device=speech.device),
            return_complex=True,
        )
        power = spectrum[..., :-1].abs().square()  # Whisper drops the last frame
        mel = (power.transpose(1, 2) @ filters).clamp(min=1e-10).log10()
        loudest = mel.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0
