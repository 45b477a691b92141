"""JSON lines: strict where somebody else wrote, forgiving where we were killed."""

import math

import pytest

from espnet_taste.eval.json_lines import ResumableLines, finite, read_rows


def test_rows_come_with_their_place(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b", "x": 1}\n')

    assert list(read_rows(path, ["key"])) == [
        (f"{path}:1", {"key": "a"}),
        (f"{path}:2", {"key": "b", "x": 1}),
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", True, [1.0]])
def test_only_finite_numbers_are_numbers(value):
    with pytest.raises(ValueError, match="f:3: 'a' has loss .*expected a finite"):
        finite({"key": "a", "loss": value}, "loss", "f:3")


def test_whole_numbers_become_floats():
    assert finite({"loss": 3}, "loss", "f:1") == 3.0


def test_appended_rows_come_back(tmp_path):
    lines = ResumableLines(tmp_path / "new" / "rows.jsonl", ["key"])

    assert lines.load() == []
    lines.append({"key": "\u00e4\u2028b"})
    lines.append({"key": "b"})

    assert [row["key"] for _, row in lines.load()] == ["\u00e4\u2028b", "b"]


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        ResumableLines(tmp_path / "rows.jsonl", []).append({"x": math.nan})
    assert not (tmp_path / "rows.jsonl").exists()
