"""Job splitting and merging: nothing lost, nothing twice."""

import json
import os
import tracemalloc

import kaldiio
import numpy as np
import pytest

from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.jobs import (
    merge_jobs,
    next_utterances,
    read_keys,
    split_keys,
    utterance_ids,
    write_lengths,
)
from espnet_taste.data.kaldi import read_table, write_table


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    write_table(folder / "wav.scp", {f"utt{i}": f"{i}.wav" for i in range(7)})
    return folder


def test_every_key_goes_to_exactly_one_job(data_dir, tmp_path):
    keys = utterance_ids(data_dir)

    assert split_keys(keys, 3, tmp_path / "parts") == 3

    parts = [list(read_table(tmp_path / f"parts/keys.{n}")) for n in (1, 2, 3)]
    assert sum(parts, []) == keys
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_there_are_never_more_jobs_than_keys(data_dir, tmp_path):
    assert split_keys(utterance_ids(data_dir), 99, tmp_path / "parts") == 7


def test_segments_name_the_utterances_and_text_adds_those_without_audio(data_dir):
    write_table(data_dir / "segments", {"seg1": "utt0 0 1"})
    write_table(data_dir / "text", {"seg1": "a", "ghost": "b"})

    assert utterance_ids(data_dir) == ["ghost", "seg1"]


def test_a_folder_that_is_not_a_data_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no wav.scp"):
        utterance_ids(tmp_path)


def test_an_unknown_key_of_a_subset_is_named(data_dir, tmp_path):
    write_table(tmp_path / "keys", {"utt1": "", "elsewhere": ""})

    with pytest.raises(ValueError, match="'elsewhere' is not in"):
        read_keys(data_dir, tmp_path / "keys")


def test_the_next_utterance_of_the_last_one_is_the_first(data_dir):
    partner = next_utterances(data_dir)

    assert partner["utt2"] == "utt3" and partner["utt6"] == "utt0"


def test_the_next_utterance_says_something_else(data_dir):
    said = ["yes", "no", "Yes", "yes", "go on", "yes", "YES"]
    write_table(data_dir / "text", {f"utt{n}": text for n, text in enumerate(said)})

    partner = next_utterances(data_dir)

    assert [int(partner[f"utt{n}"][3:]) for n in range(7)] == [1, 2, 4, 4, 5, 1, 1]


@pytest.mark.parametrize("count", [1, 2])
def test_a_set_without_another_text_has_nothing_to_exchange(tmp_path, count):
    write_table(tmp_path / "wav.scp", {f"utt{n}": "x.wav" for n in range(count)})
    write_table(tmp_path / "text", {f"utt{n}": "yes" for n in range(count)})

    with pytest.raises(ValueError, match="one utterance|say the same"):
        next_utterances(tmp_path)


def job(parts, number, table, count):
    write_table(parts / str(number) / "text", table)
    (parts / str(number) / "summary.json").write_text(json.dumps(count))


def test_tables_are_sorted_and_counts_are_added(tmp_path):
    parts = tmp_path / "parts"
    split_keys(["a", "b"], 2, parts)
    job(parts, 1, {"b": "B"}, {"kept": 1, "excluded": {"silent": 2}, "rate": "16k"})
    job(parts, 2, {"a": "A"}, {"kept": 3, "excluded": {"nan": 1}, "rate": "16k"})

    merge_jobs(parts, tmp_path / "out")

    assert (tmp_path / "out/text").read_text() == "a A\nb B\n"
    assert json.loads((tmp_path / "out/summary.json").read_text()) == {
        "kept": 4,
        "excluded": {"silent": 2, "nan": 1},
        "rate": "16k",
    }


def test_the_same_utterance_from_two_jobs_is_an_error(tmp_path):
    parts = tmp_path / "parts"
    split_keys(["a", "b"], 2, parts)
    job(parts, 1, {"a": "1"}, {})
    job(parts, 2, {"a": "2"}, {})

    with pytest.raises(ValueError, match="'a' was also .*; remove .*parts to make"):
        merge_jobs(parts, tmp_path / "out")


def test_a_job_that_lacks_a_table_is_not_joined_as_if_it_had_none(tmp_path):
    parts = tmp_path / "parts"
    split_keys(["a", "b"], 2, parts)
    job(parts, 1, {"a": "1"}, {})
    job(parts, 2, {"b": "2"}, {})
    (parts / "2" / "text").unlink()

    with pytest.raises(FileNotFoundError, match="no .*parts/2/text, which another"):
        merge_jobs(parts, tmp_path / "out")


def test_jobs_that_seem_to_have_left_nothing_are_not_joined(tmp_path):
    """A shared file system may list them late; the step would be marked done."""
    parts = tmp_path / "parts"
    (parts / "1").mkdir(parents=True)
    (parts / "1" / "units.chunk1.ark").touch()
    (parts / "num_jobs").write_text("1\n")

    with pytest.raises(FileNotFoundError, match="no job has left anything in .*parts"):
        merge_jobs(parts, tmp_path / "out")


def test_lengths_are_told_without_reading_the_arrays(tmp_path):
    with ArkWriter(tmp_path, "mel") as writer:
        writer("a", np.zeros((20_000, 80), np.float32))
        writer("b", np.zeros(3, np.float32))
    kaldiio.save_ark(str(tmp_path / "c.ark"), {"c": np.zeros((5, 2))})  # doubles
    with (tmp_path / "mel.scp").open("a") as stream:
        stream.write(f"c {tmp_path}/c.ark:2\n")

    tracemalloc.start()
    write_lengths(tmp_path / "mel.scp", tmp_path / "mel_shape")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert read_table(tmp_path / "mel_shape") == {"a": "20000", "b": "3", "c": "5"}
    assert peak < 1e6  # the first array has 6.4 MB


def test_the_length_of_an_array_that_was_cut_off_is_not_told(tmp_path):
    with ArkWriter(tmp_path, "mel") as writer:
        writer("a", np.zeros((9, 80), np.float32))
    os.truncate(tmp_path / "mel.chunk1.ark", 2000)

    with pytest.raises(ValueError, match="'a': cannot read .*mel.chunk1.ark"):
        write_lengths(tmp_path / "mel.scp", tmp_path / "mel_shape")
