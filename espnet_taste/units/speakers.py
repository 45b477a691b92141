"""Choose a source of speaker embeddings; open it.

Apart from the units: what only embeds speakers need not wait for transformers.
"""

from typing import Protocol

import numpy as np

from espnet_taste.units.campplus import CamPlus, find_campplus
from espnet_taste.units.speaker import SpeakerEncoder
from espnet_taste.weights import resolve


class SpeakerEmbedder(Protocol):
    """What embeds speakers."""

    def embed(self, speech: np.ndarray) -> np.ndarray:
        """Embed a waveform at 16 kHz, (N,) float32, to a vector of norm 1."""


def open_speaker_encoder(model: str) -> SpeakerEmbedder:
    """Open a speaker encoder.

    Args:
        model: An ONNX file of CAM++ or a folder with one; else a weight name or
            folder of the GE2E encoder.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If they are not those of such an encoder.
    """
    path = find_campplus(model)
    if path is not None:
        return CamPlus(path)
    return SpeakerEncoder.load(resolve(model))
