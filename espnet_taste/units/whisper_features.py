"""Frame features of a shallow layer of a frozen Whisper encoder.

Only the layers that are needed are kept, and only the frames of the audio itself
are computed, not the 30 s window Whisper was trained with.

Symbols: N samples, T encoder frames (50 per second), D width.
"""

from pathlib import Path

import numpy as np
import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.types import SAMPLE_RATE_HZ

FRAME_RATE_HZ = 50
FRAME_SAMPLES = SAMPLE_RATE_HZ // FRAME_RATE_HZ
FFT_SIZE = 400
HOP = 160
DYNAMIC_RANGE = 8.0  # in log10 units below the loudest bin, as Whisper clips


class WhisperFeatures(nn.Module):
    """Compute hidden states after ``layer`` encoder layers; frozen, always eval.

    Not the tokenizer's encoder: this one has no window option and no second tap.

    Args:
        folder: Whisper weights in Hugging Face layout.
        layer: Number of encoder layers to run, 0 (convolutions only) or more.

    Raises:
        ValueError: If the encoder has fewer layers.
    """

    def __init__(self, folder: Path, layer: int):
        super().__init__()
        from transformers import WhisperModel

        encoder = WhisperModel.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        ).encoder
        if not 0 <= layer <= len(encoder.layers):
            raise ValueError(
                f"layer must be in 0..{len(encoder.layers)} for this Whisper, "
                f"got {layer}"
            )
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.positions = encoder.embed_positions
        self.layers = encoder.layers[:layer]
        filters = audio_functional.melscale_fbanks(
            FFT_SIZE // 2 + 1,
            f_min=0.0,
            f_max=SAMPLE_RATE_HZ / 2,
            n_mels=encoder.config.num_mel_bins,
            sample_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", filters, persistent=False)  # (F, mels)
        self.register_buffer("window", torch.hann_window(FFT_SIZE), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "WhisperFeatures":
        """Stay in eval mode whatever the model around asks for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, speech: np.ndarray) -> Tensor:
        """Return the frames of one utterance.

        Args:
            speech: Waveform at 16 kHz, (N,), float32; of any length above 0.

        Returns:
            Hidden states, (T, D), float32, T = N / 320 rounded up. Audio longer than
            Whisper's window is encoded in consecutive windows.

        Raises:
            ValueError: If there is no sample.
        """
        if speech.ndim != 1 or speech.size == 0:
            raise ValueError(f"expected one channel of speech, got {speech.shape}")
        window = self.positions.num_embeddings * FRAME_SAMPLES
        samples = torch.from_numpy(np.ascontiguousarray(speech, dtype=np.float32))
        parts = samples.to(self.window.device).split(window)
        return torch.cat([self._encode(part) for part in parts])

    def _encode(self, speech: Tensor) -> Tensor:
        padded = functional.pad(speech, (0, -len(speech) % FRAME_SAMPLES))
        hidden = functional.gelu(self.conv1(self._log_mel(padded)[None]))
        hidden = functional.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.positions.weight[: hidden.size(1)]
        for layer in self.layers:
            hidden = layer(hidden, None)
        return hidden[0]

    def _log_mel(self, speech: Tensor) -> Tensor:
        # Zeros, not reflection, at the edges: reflection needs more than 200 samples
        # and Whisper's own window ends in zeros.
        spectrum = torch.stft(
            speech,
            FFT_SIZE,
            HOP,
            window=self.window,
            pad_mode="constant",
            return_complex=True,
        )
        power = spectrum[:, :-1].abs().square()
        log = (self.filters.T @ power).clamp(min=1e-10).log10()
        return (torch.maximum(log, log.max() - DYNAMIC_RANGE) + 4.0) / 4.0
