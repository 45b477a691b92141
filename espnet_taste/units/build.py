"""Choose a source of units by the name in YAML, and open a folder of units.

S3 units will stand here beside ``whisper_kmeans`` under their own name.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.units.contracts import AbsUnitExtractor
from espnet_taste.units.whisper_kmeans import WhisperKMeans, read_units_conf
from espnet_taste.units.whisper_vq import WhisperVQ

UNITS: dict[str, type[AbsUnitExtractor]] = {
    "whisper_kmeans": WhisperKMeans,
    "whisper_vq": WhisperVQ,
}


@dataclass(frozen=True)
class UnitsInfo:
    """What the other stages need to know about a folder of units."""

    units: str  # name in YAML
    num_units: int
    unit_rate_hz: float


def choose_units(name: str) -> type[AbsUnitExtractor]:
    """Return the class behind a name.

    Raises:
        ValueError: If there is none; the choices are listed.
    """
    if name not in UNITS:
        raise ValueError(f"units: '{name}' is not one of {sorted(UNITS)}")
    return UNITS[name]


def read_units_info(folder: Path) -> UnitsInfo:
    """Read name, number and rate of the units, without loading any weights.

    Raises:
        FileNotFoundError: If the folder holds no trained units.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run the stage train_units first")
    facts = json.loads(path.read_text(encoding="utf-8"))
    return UnitsInfo(facts["units"], facts["num_units"], facts["unit_rate_hz"])


def load_units(folder: Path) -> AbsUnitExtractor:
    """Load the extractor of a folder, whatever its kind.

    Raises:
        FileNotFoundError: If the folder holds no trained units.
        ValueError: If its kind is unknown to this version.
    """
    return choose_units(read_units_info(folder).units).load(Path(folder))


def learn_units(
    config: dict[str, Any], speech: Iterable[np.ndarray]
) -> AbsUnitExtractor:
    """Learn classes as a YAML file describes them (``units``, ``units_conf``).

    Units of kind ``whisper_vq`` are trained by an ESPnet task instead.

    Raises:
        ValueError: If a key is unknown or the units cannot be learned.
    """
    name = config.get("units", "whisper_kmeans")
    if choose_units(name) is not WhisperKMeans:
        raise ValueError(f"units '{name}' are not made by clustering; see units_train")
    if unknown := sorted(config.keys() - {"units", "units_conf"}):
        raise ValueError(f"unknown {unknown}; known are ['units', 'units_conf']")
    return WhisperKMeans.learn(read_units_conf(config.get("units_conf") or {}), speech)
