"""What others have published, to stand beside our results.

``published.tsv`` has one value a line: group (``pairs``, ``continuations`` or
``questions``), measure, system, value as it is printed there, source, and what in the
protocol keeps it from being compared as it stands. Accuracies are in percent. The
tables of ``docs/benchmarks.md`` are these, as ``markdown`` writes them.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

FILE = "published.tsv"
FIELDS = ("group", "measure", "system", "value", "source", "note")
GROUPS = ("pairs", "continuations", "questions")
Beside = Mapping[str, Sequence[Mapping[str, Any]]]  # measure to its published values


@dataclass(frozen=True)
class Published:
    """One value."""

    group: str
    measure: str
    system: str
    value: str
    source: str
    note: str


@lru_cache(maxsize=1)
def read_published() -> tuple[Published, ...]:
    """Return all values, in the order of the file."""
    path = resources.files("espnet_taste.eval").joinpath(FILE)
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    return tuple(Published(**row) for row in rows)


def beside(group: str, measures: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the published values of some measures as JSON knows them.

    Args:
        group: One of ``GROUPS``.
        measures: Those that we have; what nobody published is left out.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for measure in measures:
        for row in read_published():
            if (row.group, row.measure) == (group, measure):
                facts = {"system": row.system, "value": float(row.value)}
                facts |= {"source": row.source, "note": row.note}
                found.setdefault(measure, []).append(facts)
    return found


def lines(found: Beside) -> list[str]:
    """Return lines for a person: the values of every measure, then the protocols."""
    texts = [
        f"published, {measure}: "
        + "; ".join(f"{row['system']} {row['value']:g}" for row in rows)
        for measure, rows in found.items()
    ]
    rows = [row for values in found.values() for row in values]
    return texts + list(dict.fromkeys(f"  {r['source']}: {r['note']}" for r in rows))


def markdown(group: str, measures: Sequence[str]) -> str:
    """Return a Markdown table of one row a system and source, and its notes."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    notes: dict[str, None] = {}
    for row in read_published():
        if row.group == group and row.measure in measures:
            cells.setdefault((row.system, row.source), {})[row.measure] = row.value
            notes[f"* {row.source}: {row.note}."] = None
    head = ["system", *measures, "source"]
    table = [head, ["---"] * len(head)]
    for (system, source), values in cells.items():
        table.append([system, *(values.get(name, "") for name in measures), source])
    return "\n".join([*(f"| {' | '.join(row)} |" for row in table), "", *notes])
