"""Which golden results were compared, and whether their absence means anything.

``tests/golden/conftest.py`` notes here what ran; ``tests/golden/test_coverage.py``
asks.
"""

import re
from pathlib import Path

from golden_case import COMPARED, GoldenCase

FOLDER = Path(__file__).parent / "golden"
# Collected test functions, and tests that did not pass in this process, by file.
COLLECTED: dict[str, set[str]] = {}
UNFINISHED: dict[str, set[str]] = {}


def files_of_case(case: str) -> list[Path]:
    """Return the test files that read a case."""
    pattern = re.compile(rf'golden\(\s*"{re.escape(case)}"')
    paths = sorted(FOLDER.glob("test_*.py"))
    return [path for path in paths if pattern.search(path.read_text(encoding="utf-8"))]


def not_run(case: str) -> list[str]:
    """Return the tests that may compare results of a case but did not run and pass."""
    left = []
    for path in files_of_case(case):
        source = path.read_text(encoding="utf-8")
        functions = set(re.findall(r"^def (test_\w+)", source, re.MULTILINE))
        never = functions - COLLECTED.get(path.name, set())
        left += [f"{path.name}::{name}" for name in sorted(never)]
        left += sorted(UNFINISHED.get(path.name, ()))
    return left


def not_compared(folder: Path) -> dict[str, list[str]]:
    """Return the results that no test has compared so far, by case.

    Args:
        folder: Folder of the golden fixtures.
    """
    left = {}
    for path in sorted(folder.glob("*.safetensors")):
        names = GoldenCase(folder, path.stem).to_compare() - COMPARED[path.stem]
        if names:
            left[path.stem] = sorted(names)
    return left
