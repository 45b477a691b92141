"""Utterances that a step leaves out: each one with its reason, counted, bounded.

A step over utterances keeps a journal, one JSON line an utterance, so that a killed
run goes on where it was. At its end ``excluded.jsonl`` names what was left out,
``summary.json`` holds the counts (numbers only, so that the counts of parallel jobs
can be added), and too large a share stops the run.
"""

import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from espnet_taste.data.kaldi import atomic_write

logger = logging.getLogger(__name__)

# Reasons that may be gone when the same command runs again.
MENDABLE = ("unreadable", "empty", "no_audio", "no_speaker")


class ExclusionError(ValueError):
    """An utterance that cannot be used.

    Args:
        reason: One word under which such utterances are counted.
        detail: What was expected and found, for a person.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def is_excluded(row: Mapping[str, object]) -> bool:
    """Tell whether a journal row leaves its utterance out for good.

    What could not be read or stood in no table is tried again by the next run: a disk
    may be back, or a table mended.
    """
    return row.get("reason", MENDABLE[0]) not in MENDABLE


class Journal:
    """What was decided on each utterance so far, in a file that only grows.

    Args:
        path: JSON lines with a ``key``; made if needed. A last line that a kill cut
            short is dropped with a message.
        settings: Option name to value. They are the first line; a journal written
            with other settings is refused, because half of the work would be of one
            kind and half of the other.

    Raises:
        ValueError: If the settings differ or a line other than the last is broken.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, object]):
        self.path = Path(path)
        self.rows: dict[str, dict] = {}
        settings = {name: str(value) for name, value in settings.items()}
        lines = self._read_lines()
        if lines:
            _compare(json.loads(lines[0])["settings"], settings, self.path.parent)
        for number, line in enumerate(lines[1:], start=2):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{self.path}:{number}: not JSON: {error}") from error
            self.rows[row["key"]] = row
        if not lines:
            with atomic_write(self.path) as stream:
                stream.write(json.dumps({"settings": settings}) + "\n")

    def add(self, key: str, row: Mapping[str, object]) -> None:
        """Note the outcome of one utterance; it survives a kill from here on."""
        self.add_all({key: row})

    def add_all(self, rows: Mapping[str, Mapping[str, object]]) -> None:
        """Note the outcomes of utterances, in one write."""
        if not rows:
            return
        noted = {key: {"key": key, **row} for key, row in rows.items()}
        self.rows.update(noted)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in noted.values()]
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot note the outcome of '{next(iter(noted))}' ({error.strerror}); "
                "make room and run the same command again",
                str(self.path),
            ) from error

    def exclude(self, key: str, error: ExclusionError) -> None:
        """Note that an utterance is left out."""
        self.add(key, {"reason": error.reason, "detail": error.detail})

    def _read_lines(self) -> list[str]:
        """Read the complete lines and cut off what follows the last of them."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        complete = data.rfind(b"\n") + 1
        if complete < len(data):
            logger.warning(f"{self.path}: dropped a last line that was cut short")
            with self.path.open("r+b") as stream:
                stream.truncate(complete)
        # Not splitlines: a detail may hold one of the separators that it knows.
        return data[:complete].decode("utf-8").split("\n")[:-1]


def keep_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Note by which options a folder is filled; refuse to go on in it by others.

    Args:
        folder: Output folder of a command that a killed run goes on with.
        settings: Option name to value.

    Raises:
        ValueError: If the folder was begun with other settings.
    """
    Journal(folder / ".settings.jsonl", settings)


def _compare(old: Mapping[str, str], new: Mapping[str, str], folder: Path) -> None:
    """Refuse to go on in a folder that was begun with other settings."""
    # An option that did not exist then is one that is left out now.
    old, new = ({n: v for n, v in each.items() if v != "None"} for each in (old, new))
    names = sorted(
        name for name in old.keys() | new.keys() if old.get(name) != new.get(name)
    )
    if names:
        changes = ", ".join(f"{n} {old.get(n)} -> {new.get(n)}" for n in names)
        raise ValueError(
            f"{folder} was begun with other settings ({changes}); remove it or choose "
            "another --output_dir"
        )


def write_outcome(
    folder: Path,
    outcomes: Mapping[str, Mapping[str, object]],
    counts: Mapping[str, float],
    max_excluded: float,
) -> dict:
    """Write excluded.jsonl and summary.json.

    Args:
        folder: Where to.
        outcomes: Utterance id to journal row; rows with a ``reason`` are left out.
        counts: Further numbers for the summary, such as seconds kept.
        max_excluded: Largest acceptable share, noted for ``check_share``.

    Returns:
        The summary: ``total``, ``kept``, ``excluded`` by reason, ``counts``, and
        ``max_excluded`` as text, which joining the counts of jobs leaves as it is.
    """
    left_out = {key: row for key, row in outcomes.items() if "reason" in row}
    with atomic_write(folder / "excluded.jsonl") as stream:
        for key in sorted(left_out):
            stream.write(json.dumps(left_out[key], ensure_ascii=False) + "\n")
    reasons = Counter(str(row["reason"]) for row in left_out.values())
    summary = {
        "total": len(outcomes),
        "kept": len(outcomes) - len(left_out),
        "excluded": dict(sorted(reasons.items())),
        **counts,
        "max_excluded": f"{max_excluded:g}",
    }
    with atomic_write(folder / "summary.json") as stream:
        stream.write(json.dumps(summary, indent=2) + "\n")
    return summary


def summary_table(summary: Mapping) -> str:
    """Format the counts of a summary for a person, one line each."""
    total = max(summary["total"], 1)
    rows = [("kept", summary["kept"]), *summary["excluded"].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'utterances':<{max(width, 10)}}  {summary['total']:>8}"]
    for name, count in rows:
        share = 100 * count / total
        lines.append(f"{name:<{max(width, 10)}}  {count:>8}  {share:5.1f} %")
    return "\n".join(lines)


def check_share(summary: Mapping, folder: Path) -> None:
    """Stop when too much was left out for the rest to be trusted.

    Args:
        summary: As ``write_outcome`` returns it, or joined from the jobs' ones.
        folder: Folder with excluded.jsonl, for the message.

    Raises:
        ValueError: If the share is larger or nothing is left.
    """
    left_out = summary["total"] - summary["kept"]
    reasons = ", ".join(
        f"{count} {name}" for name, count in summary["excluded"].items()
    )
    if summary["kept"] == 0:
        raise ValueError(
            f"nothing is left of {summary['total']} utterances ({reasons}); see "
            f"{folder}/excluded.jsonl"
        )
    max_excluded = float(summary["max_excluded"])
    if left_out > max_excluded * summary["total"]:
        raise ValueError(
            f"{left_out} of {summary['total']} utterances are excluded ({reasons}), "
            f"more than the share of {max_excluded:g} that --max_excluded allows; see "
            f"{folder}/excluded.jsonl"
        )
