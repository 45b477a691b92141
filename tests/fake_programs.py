"""Executables for tests of scripts: stand-ins for compilers, uv and interpreters."""

import os
import sys
from pathlib import Path

# Comparable with what scripts print: no ".." of a path that the caller typed.
THIS_PYTHON = os.path.normpath(sys.executable)


def write_script(path: Path, text: str) -> Path:
    """Write an executable file, with its folder, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path
