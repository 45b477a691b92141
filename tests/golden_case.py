"""Reader of the golden fixtures: inputs, weights and tolerances of one case.

A case is ``<name>.json`` and, unless it holds index logic only,
``<name>.safetensors``. Every size, length and name a test needs is read from
there, so that another pack with other sizes passes unchanged.

A subset of a pack (``golden_subset.py``) lists in its JSON files what it leaves out;
a test that needs such a tensor skips and says so.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

# Names of the results that were compared in this process, by case.
COMPARED: dict[str, set[str]] = defaultdict(set)
# How many comparisons were made, and how many were asked for with results left out.
COUNTS: Counter[str] = Counter()


class GoldenCase:
    """One case of the golden fixtures.

    Args:
        folder: Folder of the fixtures.
        name: Name of the case, e.g. ``tower``.
    """

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.info = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = folder / f"{name}.safetensors"
        self._tensors = load_file(tensors) if tensors.exists() else {}
        self._left_out = set(self.info.get("left_out", ()))

    @property
    def config(self) -> dict:
        """Configuration of the case, as its JSON file has it."""
        return self.info["config"]

    def input(self, name: str) -> Tensor:
        """Return a copy of the input ``in.<name>``."""
        return self._tensor(f"in.{name}").clone()

    def output(self, name: str) -> Tensor:
        """Return the expected result ``out.<name>``."""
        return self._tensor(f"out.{name}")

    def has(self, name: str) -> bool:
        """Tell whether the case holds an expected result of this name."""
        return f"out.{name}" in self._tensors

    def output_names(self, prefix: str = "") -> list[str]:
        """Return the names of the expected results that start with a prefix."""
        return [name for name in self.info["outputs"] if name.startswith(prefix)]

    def sub_cases(self, result: str) -> list[str]:
        """Return the sub-cases that have an expected result of this name."""
        end = f".{result}"
        return [n.removesuffix(end) for n in self.output_names() if n.endswith(end)]

    def to_compare(self) -> set[str]:
        """Return the names of all results that a re-implementation must reproduce.

        Not among them are those that are only information and those that record
        what the original does wrong.
        """
        return {
            name
            for name, entry in self.info.get("outputs", {}).items()
            if entry.get("match") != "none" and "reference_defect" not in name
        }

    def state(self, prefix: str = "", kind: str = "state") -> dict[str, Tensor]:
        """Return copies of the weights under a prefix, the prefix removed.

        Large tables are stored by their non-zero rows and are made whole here.

        Args:
            prefix: Start of the original's key, e.g. ``audio_tower.vq.rvq.``.
            kind: ``state``, or the name of a second set of weights.
        """
        for name in sorted(self._left_out):
            if name.startswith(f"{kind}.{prefix}"):
                self._skip(name)
        state = {}
        for name, value in self._tensors.items():
            if name.startswith(f"{kind}.{prefix}"):
                state[name.removeprefix(f"{kind}.{prefix}")] = value.clone()
        if kind == "state":
            for key, entry in self.info.get("sparse_rows", {}).items():
                if key.startswith(prefix):
                    state[key.removeprefix(prefix)] = self._dense(key, entry["shape"])
        return state

    def check(self, name: str, value: Tensor, mask: Tensor | None = None) -> None:
        """Compare a result with ``out.<name>`` at the tolerance of its entry.

        Args:
            name: Name of the expected result.
            value: Our result, of the same shape.
            mask: True where to compare, any shape that broadcasts to the leading
                dimensions; None compares everything.
        """
        if f"out.{name}" in self._left_out:
            COUNTS["left out"] += 1
            return
        entry = self.info["outputs"][name]
        expected = self.output(name)
        value = value.detach().cpu()
        assert value.shape == expected.shape, (
            f"{self.name}: {name} has shape {tuple(value.shape)}, "
            f"expected {tuple(expected.shape)}"
        )
        if mask is not None:
            mask = mask.bool().expand(expected.shape[: mask.dim()])
            value, expected = value[mask], expected[mask]
        assert expected.numel(), f"{self.name}: nothing to compare in {name}"
        if entry.get("match") == "none":
            return
        exact = entry.get("match") == "exact"
        torch.testing.assert_close(
            value.to(expected.dtype),
            expected,
            atol=0.0 if exact else entry["atol"],
            rtol=0.0 if exact else entry["rtol"],
            msg=lambda text: f"{self.name}: {name}\n{text}",
        )
        COMPARED[self.name].add(name)
        COUNTS["compared"] += 1

    def _tensor(self, name: str) -> Tensor:
        if name in self._left_out:
            self._skip(name)
        return self._tensors[name]

    def _skip(self, name: str) -> None:
        pytest.skip(f"the subset of case '{self.name}' leaves out {name}")

    def _dense(self, key: str, shape: list[int]) -> Tensor:
        rows = self._tensors[f"rows.{key}"]
        dense = torch.zeros(shape, dtype=rows.dtype)
        dense[self._tensors[f"row_ids.{key}"].long()] = rows
        return dense
