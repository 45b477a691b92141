"""Speaker embeddings of the GE2E encoder that Resemblyzer distributes.

Three LSTM layers over a 40-channel mel spectrogram, mean over overlapping windows
of 1.6 s. Our own module, with the parameter names of the checkpoint.

Symbols: B batch, N samples, M mel frames.

Source: GE2E (arXiv:1710.10467); Resemblyzer 0.1.4. Different on purpose: nothing
is cut out of the middle of an utterance (Resemblyzer shortens long silences with a
voice activity detector, a compiled dependency), so an embedding of speech with
long pauses differs slightly from Resemblyzer's.
"""

from pathlib import Path

import numpy as np
import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn
from torch.nn import functional

from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.weights.strict import read_weights

EMBEDDING_DIM = 256
HIDDEN_DIM = 256
NUM_MELS = 40
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
PARTIAL_FRAMES = 160  # 1.6 s, the length the encoder was trained on
PARTIALS_PER_S = 1.3
BLOCK = 256  # windows at once, 0.2 GB; an hour of speech has 4680
MIN_COVERAGE = 0.75  # a last window holding less speech than this is left out
TARGET_DBFS = -30.0  # quieter utterances are raised to this level


class SpeakerEncoder(nn.Module):
    """Frozen speaker encoder; stays in eval mode through ``train()``."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(NUM_MELS, HIDDEN_DIM, num_layers=3, batch_first=True)
        self.linear = nn.Linear(HIDDEN_DIM, EMBEDDING_DIM)
        filters = audio_functional.melscale_fbanks(
            WINDOW // 2 + 1,
            f_min=0.0,
            f_max=SAMPLE_RATE_HZ / 2,
            n_mels=NUM_MELS,
            sample_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", filters, persistent=False)  # (F, 40)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def load(cls, folder: Path) -> "SpeakerEncoder":
        """Load the weights that the resolver returns for ``resemblyzer/ge2e``.

        Raises:
            FileNotFoundError: If there is no ``model.safetensors``.
            ValueError: If a tensor of the encoder is missing.
        """
        path = Path(folder) / "model.safetensors"
        encoder = cls()
        state = read_weights(path)
        # The scale and bias of the training loss lie in the checkpoint too.
        wanted = encoder.state_dict().keys()
        if missing := sorted(wanted - state.keys()):
            raise ValueError(f"{path}: not a GE2E encoder; it lacks {missing[:3]}")
        encoder.load_state_dict({name: state[name] for name in wanted})
        return encoder

    def train(self, mode: bool = True) -> "SpeakerEncoder":
        """Stay in eval mode whatever the model around asks for."""
        return super().train(False)

    def forward(self, mel: Tensor) -> Tensor:
        """Embed windows, (B, M, 40) mel power -> (B, 256), norm 1, not negative."""
        _, (hidden, _) = self.lstm(mel)
        return functional.normalize(torch.relu(self.linear(hidden[-1])), dim=-1)

    @torch.no_grad()
    def embed(self, speech: np.ndarray) -> np.ndarray:
        """Embed one utterance.

        Args:
            speech: Waveform at 16 kHz, (N,), float32, -1..1.

        Returns:
            Embedding, (256,), float32, norm 1.

        Raises:
            ValueError: If the waveform is empty or silent, which has no speaker.
        """
        if speech.ndim != 1 or not np.any(speech):
            raise ValueError(
                "a speaker embedding needs one channel of speech that is not "
                f"silent, got shape {speech.shape}"
            )
        starts = partial_starts(len(speech))
        needed = (starts[-1] + PARTIAL_FRAMES) * HOP
        raised = raise_level(speech.astype(np.float32))
        edge = WINDOW // 2  # the first mel frame is centred on the first sample
        padded = np.pad(raised, (edge, max(0, needed - len(speech)) + edge))
        blocks = [
            self(self._windows(padded, starts[place : place + BLOCK]))
            for place in range(0, len(starts), BLOCK)
        ]
        mean = torch.cat(blocks).mean(dim=0)
        return functional.normalize(mean, dim=0).cpu().numpy()

    def _windows(self, padded: np.ndarray, starts: list[int]) -> Tensor:
        """Return windows from some frames on, (B, PARTIAL_FRAMES, 40)."""
        first, last = starts[0], starts[-1] + PARTIAL_FRAMES - 1
        piece = torch.from_numpy(padded[first * HOP : last * HOP + WINDOW])
        mel = self._mel(piece.to(self.filters.device))
        return torch.stack(
            [mel[i - first : i - first + PARTIAL_FRAMES] for i in starts]
        )

    def _mel(self, speech: Tensor) -> Tensor:
        spectrum = torch.stft(
            speech,
            WINDOW,
            HOP,
            window=self.window,
            center=False,
            return_complex=True,
        )
        return spectrum.abs().square().T @ self.filters


def raise_level(speech: np.ndarray) -> np.ndarray:
    """Amplify speech below the target level, (N,); louder speech is unchanged."""
    level = 10.0 * np.log10(np.mean(np.square(speech, dtype=np.float64)))
    gain = 10.0 ** (max(0.0, TARGET_DBFS - level) / 20.0)
    return (speech * gain).astype(np.float32)


def partial_starts(num_samples: int) -> list[int]:
    """Return the first frame of every window over an utterance, at least one."""
    num_frames = -(-(num_samples + 1) // HOP)
    step = round(SAMPLE_RATE_HZ / PARTIALS_PER_S / HOP)
    starts = list(range(0, max(1, num_frames - PARTIAL_FRAMES + step + 1), step))
    covered = (num_samples - starts[-1] * HOP) / (PARTIAL_FRAMES * HOP)
    return starts[:-1] if covered < MIN_COVERAGE and len(starts) > 1 else starts
