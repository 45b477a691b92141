"""A YAML file that a person wrote: names and values, or one line on what is wrong."""

from pathlib import Path
from typing import Any

import yaml


def read_settings(path: Path) -> dict[str, Any]:
    """Read the names and values of a YAML file; an empty one has none.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If it is absent.
        ValueError: If it is not YAML, or holds something else than names and values.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # YAML tells the place on lines of its own.
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a YAML mapping of names to values")
    return values
