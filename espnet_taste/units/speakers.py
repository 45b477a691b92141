"""Choose a source of speaker embeddings; open it; remember it with a trained model.

Apart from the units: what only embeds speakers need not wait for transformers.
"""

import os
import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
import yaml

from espnet_taste.units.campplus import CamPlus, find_campplus
from espnet_taste.units.speaker import SpeakerEncoder
from espnet_taste.weights import resolve

RECORD = "config.yaml"


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


def record_speaker_model(model: str, folder: Path) -> Path:
    """Note with which speaker encoder a model was trained.

    The file of CAM++ goes along, since it has no name by which it could be fetched.

    Args:
        model: As in ``open_speaker_encoder``.
        folder: Where to; made if needed.

    Returns:
        The record.

    Raises:
        FileNotFoundError: If the file of CAM++ is absent.
        ValueError: If it is no such network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = find_campplus(model)
    if path is not None:
        CamPlus(path)  # says what is wrong with it
        shutil.copyfile(path, folder / f"{path.name}.part")
        os.replace(folder / f"{path.name}.part", folder / path.name)
        model = path.name
    elif Path(model).exists():
        model = str(Path(model).resolve())
    record = folder / RECORD
    part = record.with_suffix(".part")
    part.write_text(yaml.safe_dump({"speaker_model": model}), encoding="utf-8")
    os.replace(part, record)
    return record


def recorded_speaker_model(record: Path) -> str:
    """Return the speaker encoder of a record, as ``open_speaker_encoder`` takes it.

    Raises:
        ValueError: If it is no such record.
    """
    values = yaml.safe_load(record.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or "speaker_model" not in values:
        raise ValueError(f"{record} names no speaker_model; remove it, or record again")
    model = str(values["speaker_model"])
    return str(record.parent / model) if model.endswith(".onnx") else model
