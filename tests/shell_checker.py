"""Where the shell checker is: beside the interpreter, or on PATH."""

import shutil
import sys
from pathlib import Path

import pytest


def shellcheck() -> str:
    """Return the program; skips where there is none."""
    here = str(Path(sys.executable).parent)
    found = shutil.which("shellcheck", path=here) or shutil.which("shellcheck")
    if found is None:
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    return found
