"""What every source of speech units promises."""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.torch import save
from torch import Tensor

from espnet_taste.data.kaldi import atomic_write


class AbsUnitExtractor(ABC):
    """Turn speech into one stream of discrete units at a fixed rate.

    An utterance's units never depend on the other utterances of a call.
    """

    @property
    @abstractmethod
    def num_units(self) -> int:
        """Number of classes; units are 0..num_units - 1."""

    @property
    @abstractmethod
    def unit_rate_hz(self) -> float:
        """Units per second."""

    @abstractmethod
    def extract(self, speech: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the units of utterances.

        Args:
            speech: Waveforms at 16 kHz, each (N,), float32, -1..1.

        Returns:
            Units per utterance, each (S,), int64, S >= 1.

        Raises:
            ValueError: If an utterance is too short for a single unit.
        """

    def to(self, device: str) -> Self:
        """Compute on a device from now on; by default, units know the CPU only.

        Args:
            device: As torch names it; units and their vectors are on the CPU still.
        """
        return self

    def unit_vectors(self) -> Tensor:
        """Return a vector for every unit, close where units sound alike.

        Returns:
            (num_units, V), float32, with any V.

        Raises:
            ValueError: If units of this kind have none.
        """
        raise ValueError(
            f"{type(self).__name__} has no vectors of its units; set unit_start: random"
        )

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything ``load`` needs, atomically, into ``folder``."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "AbsUnitExtractor":
        """Read what ``save`` wrote."""


def write_units(folder: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write ``units.safetensors``, then ``config.json``: with it a folder is whole.

    Args:
        folder: Folder to make or complete.
        tensors: What was learned.
        facts: What ``load`` and ``read_units_info`` need, for JSON.
    """
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with atomic_write(Path(folder) / "units.safetensors", "wb") as stream:
        stream.write(save(tensors))
    with atomic_write(Path(folder) / "config.json") as stream:
        stream.write(json.dumps(facts, indent=2) + "\n")


def too_short(num_samples: int, unit_rate_hz: float) -> ValueError:
    """Return the error of speech that makes no unit."""
    return ValueError(
        f"{num_samples} samples are too short for one unit at {unit_rate_hz:g} Hz"
    )


def require_same_weights(folder: Path, model: str, found: str, noted: str) -> None:
    """Refuse to use units with other weights than they were learned with.

    Raises:
        ValueError: If the digests differ; it says what to do.
    """
    if found != noted:
        raise ValueError(
            f"{folder}: the units were learned with other weights of '{model}' (sha256 "
            f"{noted[:12]}..., found {found[:12]}...); fetch those or learn the units "
            "again"
        )
