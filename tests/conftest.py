"""Fixtures shared by all tests: where the golden fixtures are, how to read them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# --import-mode=importlib leaves sys.path alone; golden_case lies beside this file.
sys.path.insert(0, str(TESTS))

from golden_case import GoldenCase  # noqa: E402  (needs the line above)
from packed_fixtures import is_packed, unpack  # noqa: E402

# The whole pack, if it lies beside the repository, before the subset that is in it.
GOLDEN_PLACES = (TESTS.parents[1] / "shared" / "golden", TESTS / "golden" / "data")


def find_golden(places: tuple[Path, ...] = GOLDEN_PLACES) -> Path:
    """Return the folder that TASTE_GOLDEN_DIR names, or else the first that exists."""
    named = os.environ.get("TASTE_GOLDEN_DIR")
    if named is not None:
        if not Path(named).is_dir():
            pytest.fail(f"TASTE_GOLDEN_DIR names no folder: {named}")
        return Path(named)
    for folder in places:
        if folder.is_dir():
            return folder
    pytest.skip("no golden fixtures: set TASTE_GOLDEN_DIR to their folder")


@pytest.fixture(scope="session")
def golden_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the golden fixtures, unpacked; skips where there is none."""
    folder = find_golden()
    if not is_packed(folder):
        return folder
    unpacked = tmp_path_factory.mktemp("golden")
    unpack(folder, unpacked)
    return unpacked


@pytest.fixture(scope="session")
def golden(golden_dir: Path) -> Callable[[str], GoldenCase]:
    """Reader of one golden case by name; skips where the pack lacks it."""

    def load(name: str) -> GoldenCase:
        if not (golden_dir / f"{name}.json").is_file():
            pytest.skip(f"the golden fixtures in {golden_dir} have no case '{name}'")
        return GoldenCase(golden_dir, name)

    return load


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in bfloat16 where it is asked for, however slow this CPU is at it."""
    monkeypatch.setattr("espnet_taste.layers.precision.has_bfloat16", lambda kind: True)


@pytest.fixture
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as on a CPU without instructions for bfloat16."""
    monkeypatch.setattr(
        "espnet_taste.layers.precision.has_bfloat16", lambda kind: False
    )
