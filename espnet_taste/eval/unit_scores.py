"""Teacher-forced unit scores: sums per utterance in, pooled scores out.

File format (JSON lines), one line per utterance and condition::

    {"key": "utt1", "condition": "matched", "loss_sum": 512.3, "top1": 80,
     "top5": 160, "count": 210}

``loss_sum`` is the summed negative log-likelihood of the units in nats, ``top1``
and ``top5`` are hits, ``count`` is the number of units predicted (the end class
included if the system predicts it). Conditions other than ``matched`` predict the
same units from another utterance's text, codes or both (``reliance``).
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from espnet_taste.eval.json_lines import finite, read_rows

MATCHED = "matched"
EXCHANGES = ("exchanged_text", "exchanged_codes", "exchanged_both")
CONDITIONS = (MATCHED, *EXCHANGES)


@dataclass(frozen=True)
class UnitCounts:
    """Teacher-forced outcome of one utterance; can be summed."""

    loss_sum: float = 0.0  # nats
    top1: int = 0
    top5: int = 0
    count: int = 0

    def __add__(self, other: "UnitCounts") -> "UnitCounts":
        return UnitCounts(
            self.loss_sum + other.loss_sum,
            self.top1 + other.top1,
            self.top5 + other.top5,
            self.count + other.count,
        )


UnitScores = dict[str, dict[str, UnitCounts]]  # condition -> utterance id -> counts


def read_unit_scores(path: Path, keys: Collection[str]) -> UnitScores:
    """Read a unit score file and check it against the utterances of the set.

    Args:
        path: The file.
        keys: Utterance ids that must be scored, under every condition of the file.

    Returns:
        Counts by condition and utterance.

    Raises:
        ValueError: If a line is broken, a number is not finite or impossible, an
            utterance is repeated, missing or unknown, a condition is unknown, or
            a condition predicts other units than ``matched``.
    """
    scores: UnitScores = {}
    for where, row in read_rows(path, ("key", "condition")):
        key, condition = row["key"], row["condition"]
        if condition not in CONDITIONS:
            raise ValueError(
                f"{where}: condition must be one of {CONDITIONS}, got {condition!r}"
            )
        known = scores.setdefault(condition, {})
        if key in known:
            raise ValueError(f"{where}: '{key}' is scored twice as {condition}")
        known[key] = _counts_of(row, where)
    if MATCHED not in scores:
        raise ValueError(f"{path}: no line with condition '{MATCHED}'")
    for condition, known in scores.items():
        check_keys(f"{path} ({condition})", known, keys)
        _check_same_units(f"{path} ({condition})", known, scores[MATCHED])
    return scores


def check_keys(where: str, found: Collection[str], expected: Collection[str]) -> None:
    """Refuse scores that miss an utterance or hold an unknown one.

    Raises:
        ValueError: With the first ten ids.
    """
    for word, keys in (
        ("no score for", set(expected) - set(found)),
        ("scores for unknown", set(found) - set(expected)),
    ):
        if keys:
            raise ValueError(
                f"{where}: {word} {len(keys)} utterances: {sorted(keys)[:10]}"
            )


def unit_items(scores: UnitScores) -> dict[str, dict[str, float]]:
    """Return the fields of the matched condition per utterance."""
    return {
        key: {
            "unit_loss_sum": counts.loss_sum,
            "unit_top1": counts.top1,
            "unit_top5": counts.top5,
            "units": counts.count,
        }
        for key, counts in scores[MATCHED].items()
    }


def _counts_of(row: dict, where: str) -> UnitCounts:
    """Check the numbers of one row."""
    read_only = ("loss_sum", "top1", "top5", "count")
    missing = [field for field in read_only if field not in row]
    if missing:
        raise ValueError(f"{where}: '{row['key']}' has no field {missing}")
    loss, top1, top5, count = (finite(row, field, where) for field in read_only)
    hits_fit = 0 <= top1 <= top5 <= count
    whole = top1.is_integer() and top5.is_integer() and count.is_integer()
    if not (hits_fit and whole) or count < 1 or loss < 0:
        raise ValueError(
            f"{where}: '{row['key']}': expected loss_sum >= 0 and whole numbers with "
            f"0 <= top1 <= top5 <= count and count >= 1, got loss_sum {loss}, "
            f"top1 {top1}, top5 {top5}, count {count}"
        )
    return UnitCounts(loss, int(top1), int(top5), int(count))


def _check_same_units(
    where: str, counts: dict[str, UnitCounts], matched: dict[str, UnitCounts]
) -> None:
    """Refuse a condition that predicts another number of units than matched."""
    for key, found in counts.items():
        if found.count != matched[key].count:
            raise ValueError(
                f"{where}: '{key}' predicts {found.count} units, the matched condition "
                f"{matched[key].count}; an exchange must keep the units"
            )
