"""The journal of a step, and the counts that end it."""

import json

import pytest

from espnet_taste.data.exclusions import (
    ExclusionError,
    Journal,
    check_share,
    summary_table,
    write_outcome,
)


def test_a_journal_goes_on_where_it_was(tmp_path):
    journal = Journal(tmp_path / "j", {"min_s": 0.1})
    journal.add("a", {"path": "x\u2028y"})
    journal.exclude("b", ExclusionError("silent", "peak 0"))

    again = Journal(tmp_path / "j", {"min_s": 0.1})

    assert again.rows == {
        "a": {"key": "a", "path": "x\u2028y"},
        "b": {"key": "b", "reason": "silent", "detail": "peak 0"},
    }


def test_a_last_line_cut_short_is_dropped_with_a_message(tmp_path, caplog):
    journal = Journal(tmp_path / "j", {})
    journal.add("a", {"n": 1})
    journal.add("b", {"n": 2})
    data = journal.path.read_bytes()
    for size in range(len(data) - 1, data.rfind(b"\n", 0, len(data) - 1) + 1, -1):
        journal.path.write_bytes(data[:size])
        caplog.clear()

        again = Journal(tmp_path / "j", {})

        assert list(again.rows) == ["a"]
        assert "cut short" in caplog.text
    again.add("b", {"n": 3})
    assert Journal(tmp_path / "j", {}).rows["b"]["n"] == 3


def test_a_broken_line_inside_is_an_error_with_its_number(tmp_path):
    journal = Journal(tmp_path / "j", {})
    with journal.path.open("a") as stream:
        stream.write('{"key": \n')

    with pytest.raises(ValueError, match="j:2: not JSON"):
        Journal(tmp_path / "j", {})


def test_other_settings_are_refused_and_named(tmp_path):
    Journal(tmp_path / "out" / "j", {"min_s": 0.1, "max_s": 30})

    with pytest.raises(ValueError, match=r"out was begun.*\(min_s 0.1 -> 0.2\)"):
        Journal(tmp_path / "out" / "j", {"min_s": 0.2, "max_s": 30})


def test_an_option_that_is_left_out_is_none_that_did_not_exist(tmp_path):
    """A folder of an older version is gone on with, and one of a newer by an older."""
    Journal(tmp_path / "j", {"min_s": 0.1, "old": None})
    Journal(tmp_path / "j", {"min_s": 0.1, "new": None})

    with pytest.raises(ValueError, match=r"\(new None -> 3\)"):
        Journal(tmp_path / "j", {"min_s": 0.1, "new": 3})


OUTCOMES = {
    "a": {"key": "a", "path": "x"},
    "b": {"key": "b", "reason": "silent", "detail": "peak"},
    "c": {"key": "c", "reason": "nan", "detail": "1 of 9"},
    "d": {"key": "d", "reason": "nan", "detail": "2 of 9"},
}


def test_the_outcome_is_on_disk_with_counts_and_names(tmp_path):
    summary = write_outcome(tmp_path, OUTCOMES, {"seconds_kept": 1.5}, 0.2)

    assert (
        summary
        == json.loads((tmp_path / "summary.json").read_text())
        == {
            "total": 4,
            "kept": 1,
            "excluded": {"nan": 2, "silent": 1},
            "seconds_kept": 1.5,
            "max_excluded": "0.2",
        }
    )
    lines = (tmp_path / "excluded.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["b", "c", "d"]
    table = summary_table(summary).splitlines()
    assert [row.split()[:2] for row in table] == [
        ["utterances", "4"],
        ["kept", "1"],
        ["nan", "2"],
        ["silent", "1"],
    ]


def test_too_large_a_share_stops(tmp_path):
    check_share(write_outcome(tmp_path, OUTCOMES, {}, 0.75), tmp_path)

    summary = write_outcome(tmp_path, OUTCOMES, {}, 0.74)
    with pytest.raises(ValueError, match="3 of 4 .*2 nan, 1 silent.* share of 0.74"):
        check_share(summary, tmp_path)


def test_nothing_left_stops_whatever_the_share(tmp_path):
    summary = write_outcome(tmp_path, {"b": OUTCOMES["b"]}, {}, 1.0)

    with pytest.raises(ValueError, match="nothing is left of 1"):
        check_share(summary, tmp_path)
