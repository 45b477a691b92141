"""JSON lines as this package's scores travel: strict to read, safe to append.

``read_rows`` is for files somebody else finished: anything wrong stops the run with
``file:line``. ``ResumableLines`` is for a file this process may have been killed
while writing: a broken *last* line is dropped with a message, and any other broken
line still stops the run.
"""

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def parse_row(line: str, where: str, fields: Sequence[str]) -> dict[str, Any]:
    """Parse one line and check that it is an object with the named fields.

    Args:
        line: The line.
        where: ``file:line`` for messages.
        fields: Names it must have.

    Raises:
        ValueError: If it is not a JSON object or lacks a field.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object, got {type(row).__name__}")
    missing = [field for field in fields if field not in row]
    if missing:
        raise ValueError(f"{where}: no field {missing}")
    return row


def read_rows(
    path: Path, fields: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield ``file:line`` and the row of every line.

    Raises:
        FileNotFoundError: If the file is absent.
        ValueError: If a line is broken or lacks a field.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            yield where, parse_row(line, where, fields)


def finite(row: Mapping[str, Any], field: str, where: str) -> float:
    """Return a field as a float, refusing all that is not a finite number.

    Raises:
        ValueError: Naming the line, the item, the field and the value.
    """
    value = row[field]
    # bool is an int to Python and a slip to everybody else.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value):
        raise ValueError(
            f"{where}: '{row.get('key')}' has {field} {value!r}; "
            "expected a finite number"
        )
    return float(value)


class ResumableLines:
    """A JSON lines file that is appended to and survives a killed writer.

    Args:
        path: The file; it and its folder are made when the first row is added.
        fields: Names every row must have.
    """

    def __init__(self, path: Path, fields: Sequence[str]):
        self.path = path
        self.fields = fields

    def load(self) -> list[tuple[str, dict[str, Any]]]:
        """Return ``file:line`` and row of every whole line; cut off a broken last one.

        Raises:
            ValueError: If a line other than the last is broken.
        """
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole, newline, rest = content.rpartition(b"\n")
        if rest:
            logger.warning(
                "%s: dropping the broken last line (%d bytes) a killed writer left",
                self.path,
                len(rest),
            )
            # Cutting in place keeps every earlier line even if we are killed here.
            os.truncate(self.path, len(whole) + len(newline))
        lines = whole.decode("utf-8").split("\n") if newline else []
        rows = []
        for number, line in enumerate(lines, start=1):
            where = f"{self.path}:{number}"
            rows.append((where, parse_row(line, where, self.fields)))
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row and push it out of this process."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        with self.path.open("ab") as file:
            file.write(line.encode("utf-8"))
