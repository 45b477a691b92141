"""Which tensor goes where, and whether all are there."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from espnet_taste.convert.architecture import Architecture
from espnet_taste.convert.errors import TensorMismatch, some
from espnet_taste.convert.modules import copied_from, expected_shapes, is_ours_alone
from espnet_taste.convert.names import Place, to_released
from espnet_taste.convert.tensors import (
    DTYPES,
    FLOATS,
    Shape,
    Stored,
    check_finite,
    open_writers,
    read_tensors,
)


@dataclass(frozen=True)
class Pair:
    """A released tensor and where it lies in our layout."""

    released: str
    released_shape: Shape
    places: tuple[Place, ...]  # the tensor, then its copies
    shape: Shape


@dataclass(frozen=True)
class Plan:
    """All tensors of an architecture."""

    pairs: tuple[Pair, ...]
    ours_alone: dict[Place, Shape]

    @property
    def places(self) -> dict[Place, Shape]:
        """Every tensor of our layout."""
        paired = {place: pair.shape for pair in self.pairs for place in pair.places}
        return {**paired, **self.ours_alone}


def make_plan(architecture: Architecture) -> Plan:
    """Pair the tensors that our modules have with released ones.

    Args:
        architecture: Sizes and options.
    """
    shapes = expected_shapes(architecture)
    copies: dict[Place, list[Place]] = {}
    for place in shapes:
        copies.setdefault(copied_from(place) or place, []).append(place)
    pairs, alone = [], {}
    for original, places in copies.items():
        shape = shapes[original]
        places.sort(key=lambda place: place != original)
        if is_ours_alone(original):
            alone |= dict.fromkeys(places, shape)
            continue
        name, rule = to_released(original)
        released_shape = (1, *shape) if rule.has_extra_axis else shape
        pairs.append(Pair(name, released_shape, tuple(places), shape))
    return Plan(tuple(pairs), alone)


def check_tensors(
    where: Path,
    stored: Mapping[str, Stored],
    expected: Mapping[str, Shape],
    optional: Mapping[str, Shape],
) -> None:
    """Compare what is stored with what there must be.

    Args:
        where: Folder, for the message.
        stored: Name to what is stored.
        expected: Name to shape of what there must be.
        optional: The same of what there may be.

    Raises:
        TensorMismatch: If tensors are missing, unknown, of another shape or no floats;
            all faults are listed.
    """
    faults = _faults(stored, expected, {**optional, **expected})
    listed = [f"{kind}: {some(names)}" for kind, names in faults.items() if names]
    if any(name.endswith("lm_head.weight") for name in faults["missing"]):
        listed.append(
            "the output layer is a matrix of its own, which the public trainer drops "
            "when it saves; it cannot be made up from the embedding"
        )
    if listed:
        raise TensorMismatch(
            f"{where} does not fit its config; {'; '.join(listed)}. Fetch the complete "
            "checkpoint with its own config"
        )


def _faults(
    stored: Mapping[str, Stored],
    expected: Mapping[str, Shape],
    known: Mapping[str, Shape],
) -> dict[str, list[str]]:
    present = [name for name in stored if name in known]
    return {
        "missing": [name for name in expected if name not in stored],
        "unknown": [name for name in stored if name not in known],
        "of another shape": [
            f"{name} {stored[name].shape} instead of {known[name]}"
            for name in present
            if stored[name].shape != known[name]
        ],
        "of another kind": [
            f"{name} {stored[name].dtype}"
            for name in present
            if stored[name].dtype not in _kinds(name)
        ],
    }


def _kinds(name: str) -> tuple[str, ...]:
    return ("I64",) if name.endswith("num_steps") else FLOATS


@dataclass(frozen=True)
class Target:
    """A tensor to be written."""

    path: Path
    name: str
    shape: Shape


def copy_tensors(
    stored: Mapping[str, Stored],
    targets: Mapping[str, list[Target]],
    fresh: Mapping[Target, str],
) -> None:
    """Copy tensors one by one, bit for bit, and write zeros where asked.

    Args:
        stored: Name to what is stored.
        targets: Name to where it goes.
        fresh: Tensors that start at zero, and their dtype.

    Raises:
        NotFinite: If a tensor holds NaN.
        DamagedFile: If a file is damaged.
    """
    files: dict[Path, dict[str, tuple[str, Shape]]] = {}
    for name, places in targets.items():
        for target in places:
            entry = (stored[name].dtype, target.shape)
            files.setdefault(target.path, {})[target.name] = entry
    for target, dtype in fresh.items():
        files.setdefault(target.path, {})[target.name] = (dtype, target.shape)
    with ExitStack() as stack:
        writers = open_writers(files, stack)
        for name, tensor in read_tensors({name: stored[name] for name in targets}):
            check_finite(name, tensor, stored[name].path)
            for target in targets[name]:
                writers[target.path].write(target.name, tensor)
        for target, dtype in fresh.items():
            zeros = torch.zeros(target.shape, dtype=DTYPES[dtype])
            writers[target.path].write(target.name, zeros)
