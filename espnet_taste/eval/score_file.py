"""One file per system, test set and kind of score; the report reads nothing else.

It keeps the counts of every utterance, because intervals and paired comparisons need
them, and the counts of everything that was skipped.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_taste.data.kaldi import atomic_write

SCHEMA = "espnet_taste.scores/1"
KINDS = ("audio", "units", "codes", "slm")


@dataclass(frozen=True)
class ScoreFile:
    """Scores of one system on one test set."""

    system: str
    set_name: str
    kind: str  # one of KINDS
    items: Mapping[str, Mapping[str, float]]  # utterance id -> field -> count
    values: Mapping[str, float] = field(default_factory=dict)  # of the whole set
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> utterances
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}")
        for key, fields in self.items.items():
            for name, value in fields.items():
                self._check(value, f"'{key}' has {name}")
        for name, value in (*self.values.items(), *self.skipped.items()):
            self._check(value, name)

    def _check(self, value: Any, what: str) -> None:
        """Refuse a value that is no finite number."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ValueError(
                f"system '{self.system}', set '{self.set_name}', {self.kind} scores: "
                f"{what} = {value!r}; expected a finite number"
            )

    def save(self, path: Path) -> None:
        """Write the file in one step.

        Raises:
            OSError: If it cannot be written.
        """
        write_json(path, {"schema": SCHEMA, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "ScoreFile":
        """Read a file back.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is not of this schema or holds a number that is not
                finite.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not JSON: {error}") from error
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise ValueError(f"{path}: not a score file of schema '{SCHEMA}'")
        try:
            return cls(**content)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def score_path(system_dir: Path, set_name: str, kind: str) -> Path:
    """Return where a system's scores of one kind are kept."""
    return system_dir / "eval" / set_name / f"scores_{kind}.json"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in one step, refusing NaN.

    Raises:
        ValueError: If a number is not finite.
        OSError: If the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees the old one or the new one."""
    with atomic_write(path) as stream:
        stream.write(text + "\n")
