"""Unit scores: sums in, pooled fields out, impossible numbers refused."""

import json

import pytest

from espnet_taste.eval.unit_scores import UnitCounts, read_unit_scores, unit_items


def row(key="a", condition="matched", **changes):
    fields = {"loss_sum": 10.0, "top1": 2, "top5": 3, "count": 5}
    return {"key": key, "condition": condition, **fields, **changes}


def write(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_fields_of_the_matched_condition(tmp_path):
    path = write(tmp_path / "u.jsonl", row(), row("b", loss_sum=4.0),
                 row(condition="exchanged_text", loss_sum=12.0),
                 row("b", condition="exchanged_text", loss_sum=12.0))  # fmt: skip

    scores = read_unit_scores(path, ["a", "b"])

    assert scores["exchanged_text"]["b"] == UnitCounts(12.0, 2, 3, 5)
    assert unit_items(scores)["b"] == {
        "unit_loss_sum": 4.0,
        "unit_top1": 2,
        "unit_top5": 3,
        "units": 5,
    }


def test_counts_add_up():
    assert UnitCounts(1.5, 1, 2, 3) + UnitCounts(2.0, 0, 1, 4) == UnitCounts(
        3.5, 1, 3, 7
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_sum": -1.0}, "loss_sum -1.0"),
        ({"top1": 4}, "top1 4.0, top5 3.0"),
        ({"top5": 6}, "top5 6.0, count 5.0"),
        ({"top1": 1.5}, "top1 1.5"),
        ({"top1": 0, "top5": 0, "count": 0}, "count >= 1"),
        ({"condition": "shuffled"}, "condition must be one of"),
    ],
)
def test_impossible_rows_are_refused(tmp_path, changes, message):
    path = write(tmp_path / "u.jsonl", row(**changes))
    with pytest.raises(ValueError, match=message):
        read_unit_scores(path, ["a"])


def test_an_exchange_must_keep_the_units(tmp_path):
    path = write(tmp_path / "u.jsonl", row(), row(condition="exchanged_codes", count=6))
    with pytest.raises(ValueError, match="'a' predicts 6 units, .* 5; an exchange"):
        read_unit_scores(path, ["a"])


def test_a_file_without_the_matched_condition_is_refused(tmp_path):
    path = write(tmp_path / "u.jsonl", row(condition="exchanged_codes"))
    with pytest.raises(ValueError, match="no line with condition 'matched'"):
        read_unit_scores(path, ["a"])
