"""A YAML file that a person wrote: names and values, or one line on what is wrong."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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


def build(target: type, conf: Any, where: str) -> Any:
    """Build a dataclass from what a YAML file says of it.

    Args:
        target: The dataclass.
        conf: Names and values of its fields.
        where: Name of the file, for messages.

    Raises:
        ValueError: If it is no mapping, has unknown names, or a value of another type
            than its field; they are named.
    """
    if not isinstance(conf, dict):
        raise ValueError(
            f"{where}: expected names and values for {target.__name__}, got {conf!r}"
        )
    known = {f.name for f in fields(target)}
    unknown = sorted(set(conf) - known)
    if unknown:
        raise ValueError(
            f"{where}: unknown {unknown} for {target.__name__}; known: {sorted(known)}"
        )
    hints = get_type_hints(target)
    for name, value in conf.items():
        if not _has_type(value, hints[name]):
            raise ValueError(
                f"{where}: {name} of {target.__name__} cannot be {value!r}, a "
                f"{type(value).__name__}"
            )
    return target(**conf)


def _has_type(value: Any, hint: Any) -> bool:
    """Tell whether a value fits a field.

    Literal and generic fields take any; their classes check them.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return any(_is_a(value, kind) for kind in kinds)


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Callable:
        return callable(value)
    if not isinstance(kind, type):
        return True
    # A bool is no number here, and YAML reads 1 for a float and "1e-3" for a string.
    if kind in (bool, int, float, str):
        return type(value) is kind or (type(value) is int and kind is float)
    return isinstance(value, kind)
