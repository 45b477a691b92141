"""Benchmarks inside .parquet files are unpacked into the folders of their readers."""

import pytest
from hub_sounds import level, sound_bytes, write_rows

from espnet_taste.data.hub_tables import (
    has_tables,
    read_rows,
    unpack_salmon,
    unpack_stories,
)

PART = "rir_consistency"


def salmon(parts=(PART,), numbers=(7,), **changes):
    values = [(part, number) for part in parts for number in numbers]
    return {
        "task": [part for part, _ in values],
        "ind": [number for _, number in values],
        "positive_audio": [sound_bytes("WAV", 0.1)] * len(values),
        "negative_audio": [sound_bytes("FLAC", 0.2)] * len(values),
        **changes,
    }


def test_the_positive_half_of_salmon_is_number_0(tmp_path):
    write_rows(tmp_path / "hub" / PART / "train-0.parquet", salmon())

    unpack_salmon(tmp_path / "hub", tmp_path / "out", [PART])

    halves = [tmp_path / "out" / PART / f"sample_7_{half}.wav" for half in (0, 1)]
    assert [level(path) for path in halves] == [0.1, 0.2]


def test_the_table_of_all_parts_adds_nothing_and_other_parts_are_left(tmp_path):
    write_rows(tmp_path / "hub" / PART / "a.parquet", salmon())
    whole = salmon((PART, "bg_alignment"), positive_audio=[sound_bytes("WAV", 0.3)] * 2)
    write_rows(tmp_path / "hub" / "all" / "a.parquet", whole)  # is read first

    unpack_salmon(tmp_path / "hub", tmp_path / "out", [PART])

    assert [path.name for path in (tmp_path / "out").iterdir()] == [PART]
    assert len(list((tmp_path / "out" / PART).iterdir())) == 2
    assert level(tmp_path / "out" / PART / "sample_7_0.wav") == 0.3


def test_what_was_unpacked_before_is_gone(tmp_path):
    write_rows(tmp_path / "hub" / "a.parquet", salmon(numbers=(1, 2)))
    unpack_salmon(tmp_path / "hub", tmp_path / "out", [PART])
    write_rows(tmp_path / "hub" / "a.parquet", salmon(numbers=(1,)))
    unpack_salmon(tmp_path / "hub", tmp_path / "out", [PART])
    assert len(list((tmp_path / "out" / PART).iterdir())) == 2


def test_more_rows_than_are_in_memory_at_once_are_read_in_order(tmp_path):
    write_rows(tmp_path / "a.parquet", {"id": list(range(40))})
    rows = list(read_rows(tmp_path, ["id"]))
    assert [row["id"] for _, row in rows] == list(range(40))
    assert rows[33][0].endswith("a.parquet, row 33")


def test_stories_have_texts_beside_them(tmp_path):
    columns = {
        "id": [3],
        "correct_text": ["It ends well."],
        "correct_audio": [sound_bytes("WAV", 0.1)],
        "negative_text": ["It does not."],
        "negative_audio": [sound_bytes("WAV", 0.2)],
        "voice": ["ignored"],
    }
    write_rows(tmp_path / "hub" / "a.parquet", columns)

    unpack_stories(tmp_path / "hub", tmp_path / "out")

    assert level(tmp_path / "out" / "3_correct.wav") == 0.1
    assert level(tmp_path / "out" / "3_incorrect.wav") == 0.2
    assert (tmp_path / "out" / "3_incorrect.txt").read_text() == "It does not.\n"


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "a"], "row 1: id 'a' is repeated"), (["../a", "b"], "cannot name a file")],
)
def test_ids_that_name_no_file_are_refused(tmp_path, ids, message):
    columns = {"id": ids}
    for half in ("correct", "negative"):
        columns[f"{half}_text"] = ["x", "y"]
        columns[f"{half}_audio"] = [sound_bytes("WAV", 0.1)] * 2
    write_rows(tmp_path / "hub" / "a.parquet", columns)
    with pytest.raises(ValueError, match=message):
        unpack_stories(tmp_path / "hub", tmp_path / "out")
    assert not (tmp_path / "a_correct.wav").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive_audio": [None]}, "row 0: holds no audio for sample_7_0.wav"),
        ({"positive_audio": [b"noise"]}, "row 0: audio for sample_7_0.wav: "),
        ({"ind": ["7"]}, "row 0: 'ind' is '7', expected a number"),
    ],
)
def test_a_row_that_is_no_pair_is_named(tmp_path, changes, message):
    write_rows(tmp_path / "a.parquet", salmon(**changes))
    with pytest.raises(ValueError, match=message):
        unpack_salmon(tmp_path, tmp_path / "out", [PART])


def test_what_is_not_such_a_table_is_named(tmp_path):
    assert not has_tables(tmp_path)
    with pytest.raises(ValueError, match="no .parquet files"):
        list(read_rows(tmp_path, ["id"]))
    write_rows(tmp_path / "a.parquet", {"name": ["x"]})
    assert has_tables(tmp_path)
    with pytest.raises(ValueError, match=r"no column \['id'\], there are \['name'\]"):
        list(read_rows(tmp_path, ["id"]))
    (tmp_path / "a.parquet").write_text("<html>")
    with pytest.raises(ValueError, match="a.parquet: not a .parquet file"):
        list(read_rows(tmp_path, ["id"]))
