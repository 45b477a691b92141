"""Score files: there and back, and nothing that is not a number."""

import json
import math

import pytest

from espnet_taste.eval.score_file import ScoreFile, score_path, write_json


def make(**changes):
    fields = {"items": {"a": {"x": 1.5}}, "values": {"v": 2}, "skipped": {"r": 1}}
    fields |= {"metadata": {"judge": "j"}, **changes}
    return ScoreFile("sys", "set", "units", **fields)


def test_there_and_back(tmp_path):
    path = score_path(tmp_path, "set", "units")

    make().save(path)

    assert path == tmp_path / "eval" / "set" / "scores_units.json"
    assert ScoreFile.load(path) == make()
    assert [p.name for p in path.parent.iterdir()] == ["scores_units.json"]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "1", True])
def test_a_value_that_is_no_finite_number_is_named(value):
    with pytest.raises(ValueError, match="system 'sys', set 'set'.*'a' has x = "):
        make(items={"a": {"x": value}})
    with pytest.raises(ValueError, match="units scores: v = "):
        make(values={"v": value})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": "espnet_taste.sc', "not JSON"),
        ("{}", "not a score file of schema"),
        ("[]", "not a score file of schema"),
        ('{"schema": "espnet_taste.scores/1"}', "missing"),
        (json.dumps({"schema": "espnet_taste.scores/1", "system": "s", "set_name": "t",
                     "kind": "units", "items": {"a": {"x": math.nan}}}), "'a' has x"),
        (json.dumps({"schema": "espnet_taste.scores/1", "system": "s", "set_name": "t",
                     "kind": "units", "items": {"a": 3}}), "no attribute"),
    ],
)  # fmt: skip
def test_broken_files_are_refused(tmp_path, content, message):
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"scores.json: .*{message}"):
        ScoreFile.load(path)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be one of .* got 'unit'"):
        ScoreFile("s", "t", "unit", {})


def test_json_with_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"x": math.nan})
    assert list(tmp_path.iterdir()) == []
