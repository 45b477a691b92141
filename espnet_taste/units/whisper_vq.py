"""Speech units learned together with their decoder, over frozen Whisper states.

The offline stand-in for S3 units, and better than ``whisper_kmeans`` at the same
bitrate. The stage train_units trains them; ``bin.export_units`` writes the folder
that this class opens.

Symbols: N samples, T encoder frames, S units.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from espnet_taste.tokenizer.encoder import FRAME_SAMPLES, WhisperEncoder
from espnet_taste.units.contracts import (
    AbsUnitExtractor,
    require_same_weights,
    too_short,
    write_units,
)
from espnet_taste.units.unit_encoder import UnitEncoder, centre_states
from espnet_taste.units.whisper_features import FRAME_RATE_HZ
from espnet_taste.weights import fingerprint, resolve
from espnet_taste.weights.strict import read_weights


@dataclass(frozen=True)
class WhisperVQConfig:
    """What the units are made of."""

    whisper: str  # weight name or folder
    encoder_conf: dict[str, Any]  # of WhisperEncoder
    unit_encoder_conf: dict[str, Any]  # of UnitEncoder


class WhisperVQ(AbsUnitExtractor):
    """Extractor with learned convolutions and one codebook.

    Args:
        config: Settings.
        encoder: The frozen encoder whose states the units were learned from.
        unit_encoder: States to units.
        model_sha256: Digest of the Whisper weights.
    """

    def __init__(
        self,
        config: WhisperVQConfig,
        encoder: WhisperEncoder,
        unit_encoder: UnitEncoder,
        model_sha256: str,
    ):
        self.config = config
        self.encoder = encoder
        self.unit_encoder = unit_encoder.eval().requires_grad_(False)
        self.model_sha256 = model_sha256

    @classmethod
    def build(cls, config: WhisperVQConfig, state: dict[str, Tensor]) -> "WhisperVQ":
        """Open the frozen weights and load what was trained.

        Args:
            config: Settings.
            state: State dict of ``UnitEncoder``.

        Raises:
            FileNotFoundError: If the Whisper weights cannot be had.
            RuntimeError: If the tensors do not fit the settings.
        """
        unit_encoder = UnitEncoder(**config.unit_encoder_conf)
        unit_encoder.load_state_dict(state)
        encoder = WhisperEncoder(config.whisper, **config.encoder_conf)
        return cls(config, encoder, unit_encoder, fingerprint(resolve(config.whisper)))

    @property
    def num_units(self) -> int:
        """Number of classes."""
        return self.unit_encoder.num_units

    @property
    def unit_rate_hz(self) -> float:
        """Units per second."""
        return FRAME_RATE_HZ / self.unit_encoder.frames_per_unit

    def to(self, device: str) -> Self:
        """Compute on a device; see ``AbsUnitExtractor``."""
        self.encoder.to(device)
        self.unit_encoder.to(device)
        return self

    def extract(self, speech: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the units of utterances; see ``AbsUnitExtractor``."""
        return [self._extract_one(waveform) for waveform in speech]

    @torch.no_grad()
    def _extract_one(self, speech: np.ndarray) -> np.ndarray:
        size = self.encoder.max_frames * FRAME_SAMPLES
        parts = torch.from_numpy(np.array(speech, np.float32)).split(size)
        states = torch.cat([self._encode(part) for part in parts])
        return self.units_of_states(states, len(speech))

    @torch.no_grad()
    def units_of_states(self, states: Tensor, num_samples: int) -> np.ndarray:
        """Return the units of one utterance whose encoder states are at hand.

        Args:
            states: Packed states by the encoder of ``config``, (T, E), float32; those
                of the silence that the encoder puts behind the audio may follow.
            num_samples: Samples of the audio.

        Returns:
            (S,), int64, S >= 1.

        Raises:
            ValueError: If the states are of another width, or too few for a unit.
        """
        width = self.config.unit_encoder_conf["input_dim"]
        if states.size(1) != width:
            raise ValueError(
                f"states are {states.size(1)} wide, these units are made of {width}; "
                "extract them with the encoder_conf of the units"
            )
        states = states[: _num_frames(num_samples)]
        if len(states) < self.unit_encoder.frames_per_unit:
            raise too_short(num_samples, self.unit_rate_hz)
        states = centre_states(states.to(self._device))
        lengths = torch.tensor([len(states)], device=self._device)
        return self.unit_encoder(states[None], lengths).units[0].cpu().numpy()

    def unit_vectors(self) -> Tensor:
        """Return the codebook; see ``AbsUnitExtractor``."""
        return self.unit_encoder.codebook().cpu()

    @property
    def _device(self) -> torch.device:
        return next(self.unit_encoder.parameters()).device

    def _encode(self, speech: Tensor) -> Tensor:
        """Return the packed states of the audio itself, (N,) -> (T, E)."""
        speech = speech[None].to(self._device)
        packed = self.encoder(speech, torch.tensor([speech.size(1)])).pack()[0]
        return packed[: _num_frames(speech.size(1))]

    def save(self, folder: Path) -> None:
        """Write what ``load`` needs; see ``AbsUnitExtractor``."""
        facts = {
            "units": "whisper_vq",
            "num_units": self.num_units,
            "unit_rate_hz": self.unit_rate_hz,
            "whisper": self.config.whisper,
            "encoder_conf": self.config.encoder_conf,
            "unit_encoder_conf": self.config.unit_encoder_conf,
            "model_sha256": self.model_sha256,
        }
        write_units(folder, self.unit_encoder.state_dict(), facts)

    @classmethod
    def load(cls, folder: Path) -> "WhisperVQ":
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: If a file is absent.
            ValueError: If the Whisper weights are not those of the training.
        """
        folder = Path(folder)
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = WhisperVQConfig(
            facts["whisper"], facts["encoder_conf"], facts["unit_encoder_conf"]
        )
        extractor = cls.build(config, read_weights(folder / "units.safetensors"))
        require_same_weights(
            folder, config.whisper, extractor.model_sha256, facts["model_sha256"]
        )
        return extractor


def _num_frames(num_samples: int) -> int:
    """Return how many frames hold audio."""
    return -(-num_samples // FRAME_SAMPLES)
