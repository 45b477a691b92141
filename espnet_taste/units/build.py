"""Choose a source of units by its name in YAML; open it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from espnet_taste.units.contracts import AbsUnitExtractor
from espnet_taste.units.s3 import S3Units
from espnet_taste.units.whisper_kmeans import WhisperKMeans, read_units_conf
from espnet_taste.units.whisper_vq import WhisperVQ

UNITS: dict[str, type[AbsUnitExtractor]] = {
    "s3": S3Units,
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

    Units of kind ``whisper_vq`` are trained by an ESPnet task instead. Those of kind
    ``s3`` are opened: there is nothing to learn, and no speech is read.

    Raises:
        FileNotFoundError: If weights that the file names are absent.
        ValueError: If a key is unknown or the units cannot be learned.
    """
    name = config.get("units", "whisper_kmeans")
    kind = choose_units(name)
    if kind is WhisperVQ:
        raise ValueError(f"units '{name}' are not made by clustering; see units_train")
    if unknown := sorted(config.keys() - {"units", "units_conf"}):
        raise ValueError(f"unknown {unknown}; known are ['units', 'units_conf']")
    conf = config.get("units_conf") or {}
    if kind is S3Units:
        return S3Units.open(conf)
    return WhisperKMeans.learn(read_units_conf(conf), speech)
