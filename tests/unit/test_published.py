"""Published values: well formed, as on the page of benchmarks, and found by measure."""

import math
from pathlib import Path

import pytest

from espnet_taste.data.pair_sets import SALMON_PARTS
from espnet_taste.eval.pairs import COLUMNS
from espnet_taste.eval.published import (
    GROUPS,
    beside,
    lines,
    markdown,
    read_published,
)

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TABLES = [
    ("pairs", list(COLUMNS.values())),
    ("pairs", list(SALMON_PARTS)),
    ("pairs", ["sSC", "tSC", "sWUGGY", "sBLIMP"]),
    ("continuations", ["GPT-4o (1-5)", "UTMOS", "human MOS", "GenPPL"]),
    (
        "questions",
        [f"{n}, {o}" for n in ("LLaMA-Questions", "Web-Questions")
         for o in ("text", "speech")],
    ),
]  # fmt: skip


def test_every_line_is_whole_and_stands_once():
    rows = read_published()
    for row in rows:
        assert all(vars(row).values()) and row.group in GROUPS, row
        assert math.isfinite(float(row.value)), row
    names = [(row.group, row.measure, row.system, row.source) for row in rows]
    assert len(set(names)) == len(names)


def test_every_measure_is_in_a_table_of_the_page():
    told = {(group, name) for group, names in TABLES for name in names}
    assert {(row.group, row.measure) for row in read_published()} == told


@pytest.mark.parametrize(("group", "measures"), TABLES, ids=lambda x: str(x)[:20])
def test_the_page_has_the_tables(group, measures):
    assert markdown(group, measures) in PAGE.read_text(encoding="utf-8")


def test_the_columns_of_table_2_are_the_means_of_what_they_say():
    """The parts that are known add up to the columns, so both are what we think."""
    of = {(row.measure, row.system): float(row.value) for row in read_published()
          if row.group == "pairs" and row.source.startswith("TASTE")}  # fmt: skip
    for (measure, system), value in of.items():
        if measure == "overall":
            parts = of["SALMON", system], of["StoryCloze", system]
            assert value == pytest.approx(sum(parts) / 2, abs=0.11)


def test_values_are_found_by_measure():
    found = beside("questions", ["LLaMA-Questions, text", "unheard of"])

    assert list(found) == ["LLaMA-Questions, text"]
    values = {row["system"]: row["value"] for row in found["LLaMA-Questions, text"]}
    assert values["TASLM embedding, given transcripts"] == 57.7
    text = "\n".join(lines(found))
    assert "published, LLaMA-Questions, text: TASLM embedding 57.6; " in text
    assert text.count("few-shot") == 1
    assert lines({}) == []
