"""How a decoder's outputs ended: by themselves, or by a bound.

File format (JSON lines), one line per utterance::

    {"key": "utt1", "num_units": 212, "stopped_by": "end"}

``stopped_by`` is ``end`` where the model ended the output; any other word names the
bound that did.
"""

from collections.abc import Collection
from pathlib import Path

from espnet_taste.eval.json_lines import finite, read_rows
from espnet_taste.eval.unit_scores import check_keys

END = "end"


def read_generation(
    path: Path, keys: Collection[str]
) -> tuple[dict[str, float], dict[str, int]]:
    """Count how the outputs of a set ended.

    Args:
        path: The report; utterances outside ``keys`` are left aside.
        keys: Utterance ids that must have been generated.

    Returns:
        The figures ``outputs`` and ``bounded_outputs``, and the number of utterances
        per reason of note.

    Raises:
        ValueError: If a line is broken, or an utterance is missing or repeated.
    """
    ends: dict[str, str] = {}
    units: dict[str, float] = {}
    for where, row in read_rows(path, ("key", "num_units", "stopped_by")):
        key = row["key"]
        if key in ends:
            raise ValueError(f"{where}: '{key}' was generated twice")
        if key in keys:
            ends[key] = row["stopped_by"]
            units[key] = finite(row, "num_units", where)
    check_keys(str(path), ends, keys)
    bounded = sum(end != END for end in ends.values())
    values: dict[str, float] = {"outputs": len(ends), "bounded_outputs": bounded}
    return values, {
        "ended_by_length_bound": bounded,
        "no_units": sum(not count for count in units.values()),
    }
