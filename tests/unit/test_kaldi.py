"""Tables and arks: what is refused, what survives, and in which order."""

import errno
import os

import kaldiio
import numpy as np
import pytest

from espnet_taste.data import ark_writer, kaldi
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import (
    atomic_write,
    read_scp_arrays,
    read_table,
    write_table,
)


def vector(*values):
    return np.array(values, dtype=np.float32)


def test_a_table_keeps_order_blanks_inside_and_empty_values(tmp_path):
    path = tmp_path / "text"
    path.write_text("b  hello  world \n\na\nc\tx\u00a0y\u2028z\n", encoding="utf-8")

    table = read_table(path)

    assert list(table.items()) == [
        ("b", "hello  world"),
        ("a", ""),
        ("c", "x\u00a0y\u2028z"),
    ]


def test_a_repeated_id_names_file_and_both_lines(tmp_path):
    path = tmp_path / "text"
    path.write_text("a 1\nb 2\na 3\n")

    with pytest.raises(ValueError, match=r"text:3: id 'a' is repeated.* line 1"):
        read_table(path)


def test_a_table_in_another_encoding_names_the_file(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a caf\u00e9\n".encode("latin-1"))

    with pytest.raises(ValueError, match="text: not UTF-8"):
        read_table(path)


def test_a_table_is_sorted_as_kaldi_sorts(tmp_path):
    path = tmp_path / "sub" / "text"
    write_table(path, {"b": "1", "a-1": "2", "B": "", "a": "3", "\u00e4": "4"})

    keys = [line.split()[0] for line in path.read_text("utf-8").splitlines()]

    assert keys == sorted(keys, key=str.encode) == ["B", "a", "a-1", "b", "\u00e4"]
    assert read_table(path)["B"] == ""


@pytest.mark.parametrize("key, value", [("", "x"), ("a b", "x"), ("a", "x\ny")])
def test_a_row_that_would_break_the_table_is_refused(tmp_path, key, value):
    with pytest.raises(ValueError):
        write_table(tmp_path / "text", {key: value})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "text"
    path.write_text("old")

    with pytest.raises(KeyError):
        with atomic_write(path) as stream:
            stream.write("half")
            raise KeyError

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_with_the_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kaldi.os, "fsync", full)

    with pytest.raises(OSError, match="no space left on the disk.*text"):
        write_table(tmp_path / "text", {"a": "1"})
    assert list(tmp_path.iterdir()) == []


def test_the_umask_of_the_user_holds(tmp_path):
    old = os.umask(0o027)
    try:
        write_table(tmp_path / "text", {"a": "1"})
    finally:
        os.umask(old)
    assert (tmp_path / "text").stat().st_mode & 0o777 == 0o640


def test_arrays_come_back_and_kaldiio_reads_them_too(tmp_path):
    rows = {f"u{n}": np.full((n + 1, 2), n, dtype=np.float32) for n in range(7)}
    with ArkWriter(tmp_path / "d", "codes", chunk=3) as writer:
        for key, array in reversed(rows.items()):
            writer(key, array)

    arrays = read_scp_arrays(tmp_path / "d" / "codes.scp")

    assert list(arrays) == sorted(rows)
    for key, array in kaldiio.load_scp(str(tmp_path / "d" / "codes.scp")).items():
        np.testing.assert_array_equal(array, rows[key])
        np.testing.assert_array_equal(arrays[key], rows[key])
        assert arrays[key].dtype == np.float32


def test_a_buffer_reused_by_the_caller_does_not_change_what_is_written(tmp_path):
    buffer = vector(1, 2)
    with ArkWriter(tmp_path, "x") as writer:
        writer("a", buffer)
        buffer[:] = 9

    np.testing.assert_array_equal(read_scp_arrays(tmp_path / "x.scp")["a"], [1, 2])


def test_a_folder_with_relative_arks_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ArkWriter(".", "x") as writer:
        writer("a", vector(1))
    monkeypatch.chdir("/")

    np.testing.assert_array_equal(read_scp_arrays(tmp_path / "x.scp")["a"], [1])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(3), "'a': expected a float32 array, got float64"),
        (np.zeros((2, 2), np.int64), "got int64"),
        ([1.0], "got list"),
        (np.float32(1.0), "got float32"),
        (np.zeros((1, 1, 1), np.float32), "vector or matrix, got shape"),
        (np.zeros((0, 4), np.float32), "non-empty"),
        (vector(1, np.nan, np.inf), "'a': 2 of 3 values are not finite"),
    ],
)
def test_an_array_a_reader_could_not_use_is_refused_by_name(tmp_path, array, words):
    writer = ArkWriter(tmp_path, "x")

    with pytest.raises(ValueError, match=words):
        writer("a", array)
    assert writer.done == set()


def test_a_key_is_written_once_also_after_a_restart(tmp_path):
    writer = ArkWriter(tmp_path, "x")
    writer("a", vector(1))
    with pytest.raises(ValueError, match="'a' is written twice"):
        writer("a", vector(1))
    writer.close()

    again = ArkWriter(tmp_path, "x")
    assert again.done == {"a"}
    with pytest.raises(ValueError, match="'a' is written twice"):
        again("a", vector(2))


def test_what_is_done_is_not_collected_anew_for_every_question(tmp_path):
    # Callers ask for every key: 350 000 questions of as many keys would take hours.
    with ArkWriter(tmp_path, "x", chunk=2, keys="bc") as writer:
        done = writer.done
        for key in "abc":
            writer(key, vector(1))
            assert key in done
        assert writer.done is done
    assert writer.done == {"b", "c"}


def test_what_was_complete_before_an_error_is_taken_up(tmp_path):
    with pytest.raises(KeyError):
        with ArkWriter(tmp_path, "x", chunk=10) as writer:
            writer("a", vector(1))
            raise KeyError
    assert not (tmp_path / "x.scp").exists()

    with ArkWriter(tmp_path, "x") as writer:
        assert writer.done == {"a"}
        writer("b", vector(2))

    assert {key: float(a[0]) for key, a in read_scp_arrays(writer.scp).items()} == {
        "a": 1,
        "b": 2,
    }


def test_a_chunk_without_its_index_is_thrown_away(tmp_path):
    writer = ArkWriter(tmp_path, "x", chunk=1)
    writer("a", vector(1))
    writer("b", vector(2))
    (tmp_path / "x.chunk2.scp").unlink()

    again = ArkWriter(tmp_path, "x")

    assert again.done == {"a"}
    assert not (tmp_path / "x.chunk2.ark").exists()


def test_only_the_keys_of_a_job_are_listed_when_the_split_is_another(tmp_path):
    with ArkWriter(tmp_path, "x", chunk=2) as writer:
        for key in "abcd":
            writer(key, vector(ord(key)))

    with ArkWriter(tmp_path, "x", keys=["b", "e"]) as writer:
        assert writer.done == set("abcd")
        writer("e", vector(5))

    arrays = read_scp_arrays(tmp_path / "x.scp")
    assert {key: arrays[key].tolist() for key in arrays} == {"b": [98], "e": [5]}


def test_slow_arrays_do_not_wait_for_a_full_chunk(tmp_path, monkeypatch):
    now = iter([0.0, 29.0, 31.0, 32.0, 40.0])
    monkeypatch.setattr(ark_writer.time, "monotonic", lambda: next(now))
    writer = ArkWriter(tmp_path, "x", max_wait_s=30)
    counts = []
    for key in "abcde":
        writer(key, vector(1))
        counts.append(len(list(tmp_path.glob("*.ark"))))

    assert counts == [0, 0, 1, 1, 1]


def test_writers_with_similar_names_do_not_touch_each_other(tmp_path):
    for name in ("x", "x.1", "x[1]"):
        with ArkWriter(tmp_path, name) as writer:
            writer(name, vector(1))
    for name in ("x", "x.1", "x[1]"):
        assert ArkWriter(tmp_path, name).done == {name}


def test_a_cut_ark_names_key_and_file(tmp_path):
    with ArkWriter(tmp_path, "x") as writer:
        writer("a", vector(*range(10)))
    ark = tmp_path / "x.chunk1.ark"
    ark.write_bytes(ark.read_bytes()[:-4])

    with pytest.raises(ValueError, match="'a': cannot read .*x.chunk1.ark"):
        read_scp_arrays(tmp_path / "x.scp")["a"]


def test_a_pickle_in_an_ark_is_not_loaded(tmp_path):
    with kaldiio.WriteHelper(
        f"ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp", write_function="pickle"
    ) as writer:
        writer("a", {"b": 1})

    with pytest.raises(ValueError, match="not a binary Kaldi object"):
        read_scp_arrays(tmp_path / "x.scp")["a"]


def test_membership_does_not_read_the_array(tmp_path):
    (tmp_path / "x.scp").write_text("a missing.ark:2\n")
    arrays = read_scp_arrays(tmp_path / "x.scp")

    assert "a" in arrays and "b" not in arrays
    with pytest.raises(KeyError):
        arrays["b"]
    with pytest.raises(FileNotFoundError):
        arrays["a"]


def test_a_job_reads_its_part_of_a_table(tmp_path):
    path = tmp_path / "text"
    path.write_text("a one\nb two\nc three\na again\n")

    assert read_table(path, {"c", "b", "z"}) == {"b": "two", "c": "three"}
    with pytest.raises(ValueError, match=":4: id 'a' is repeated, .* in line 1"):
        read_table(path, {"a"})
