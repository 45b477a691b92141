"""How outputs ended: counted, and no utterance missing or twice."""

import json

import pytest

from espnet_taste.eval.generation import read_generation


def write(path, *ends):
    rows = [
        {"key": key, "num_units": units, "stopped_by": end} for key, units, end in ends
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_bounds_and_empty_outputs_are_counted(tmp_path):
    ends = [("a", 5, "end"), ("b", 0, "end"), ("c", 9, "max_len"), ("d", 1, "end")]
    path = write(tmp_path / "report.jsonl", *ends)

    values, notes = read_generation(path, ["a", "b", "c"])

    assert values == {"outputs": 3, "bounded_outputs": 1}
    assert notes == {"ended_by_length_bound": 1, "no_units": 1}


def test_a_repeated_or_missing_output_is_named(tmp_path):
    path = write(tmp_path / "report.jsonl", ("a", 5, "end"), ("a", 5, "end"))
    with pytest.raises(ValueError, match="report.jsonl:2: 'a' was generated twice"):
        read_generation(path, ["a"])
    path = write(tmp_path / "report.jsonl", ("a", 5, "end"))
    with pytest.raises(ValueError, match=r"no score for 1 utterances: \['b'\]"):
        read_generation(path, ["a", "b"])
