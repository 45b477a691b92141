"""Cells and tables of the results page: how a score looks in Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from espnet_taste.eval.metrics import Metric
from espnet_taste.eval.results import Row, Score
from espnet_taste.eval.roles import ROLES
from espnet_taste.eval.rules import Remark

NOTHING = "-"
# Their decoder is sent vectors, which have no bit rate.
UNQUANTIZED = ("no_quantizer", "no_quantizer_control")


@dataclass(frozen=True)
class Marks:
    """Which cells carry a dagger, and what the daggers mean."""

    remarks: Sequence[Remark]

    @property
    def texts(self) -> list[str]:
        """The distinct reasons, in order."""
        return list(dict.fromkeys(remark.text for remark in self.remarks))

    def of(self, role: str, metric: str) -> str:
        """Return the marks of one cell."""
        numbers = [
            str(self.texts.index(remark.text) + 1)
            for remark in self.remarks
            if remark.role == role and metric in remark.metrics
        ]
        return f" †{','.join(numbers)}" if numbers else ""

    def legend(self) -> list[str]:
        """Return one line per reason, with the rows it concerns."""
        lines = []
        for number, text in enumerate(self.texts, start=1):
            roles = dict.fromkeys(r.role for r in self.remarks if r.text == text)
            labels = ", ".join(ROLES[role].label for role in roles)
            lines.append(f"†{number} not meaningful ({labels}): {text}.")
        return lines


def format_score(score: Score | None, metric: Metric, *, signed: bool = False) -> str:
    """Return one cell: value and interval, or why there is none."""
    if score is None:
        return NOTHING
    if score.value is None:
        return f"none: {score.note}"
    scale, unit = (100, "%") if metric.percent else (1, "")
    sign = "+" if signed else ""

    def show(number: float) -> str:
        return f"{number * scale:{sign}.{metric.digits}f}"

    value = show(score.value) + unit
    if score.low is None:
        return f"{value} ({score.note})"
    return f"{value} [{show(score.low)}, {show(score.high)}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_escape, line))} |" for line in lines)


def _escape(cell: str) -> str:
    """Keep a cell from ending early or breaking its line."""
    return " ".join(cell.replace("|", r"\|").split())


def bullets(lines: Iterable[str]) -> str:
    """Return a Markdown list."""
    return "\n".join(f"* {line}" for line in lines)


def format_bitrate(row: Row) -> str:
    """Return the rates of a row's streams."""
    values = row.values
    parts = ["vectors"] if row.role in UNQUANTIZED else []
    parts += [
        f"{stream}s {values[f'{stream}_used_bps']:.1f} "
        f"({values[f'{stream}_nominal_bps']:.1f})"
        for stream in ("unit", "code", "text")
        if f"{stream}_used_bps" in values
    ]
    return " + ".join(parts).replace("texts ", "text ") or NOTHING
