"""Audio folders: complete utterances only, whole batches after a kill."""

import errno
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from espnet_taste.data import kaldi
from espnet_taste.data.audio_output import AudioOutput
from espnet_taste.data.kaldi import read_table

KEYS = ["a", "b", "c", "d", "e"]


class Source:
    """Counts its calls; an utterance's audio tells the batch it was made in."""

    def __init__(self, dies_at=None):
        self.batches, self.dies_at = [], dies_at

    def __call__(self, batch):
        if len(self.batches) == self.dies_at:
            raise KeyboardInterrupt
        self.batches.append(batch)
        value = (1 + KEYS.index(batch[0])) / 10
        return [
            SimpleNamespace(
                audio=np.full(80, value, np.float32),
                sample_rate_hz=16000,
                facts={"num_units": 4, "stopped_by": "end"},
            )
            for _ in batch
        ]


def contents(folder):
    table = read_table(folder / "wav.scp")
    audio = {key: soundfile.read(path)[0].tolist() for key, path in table.items()}
    return audio, (folder / "report.jsonl").read_text()


def test_table_and_report_have_every_utterance(tmp_path):
    AudioOutput(tmp_path).fill(KEYS, 2, Source)

    audio, report = contents(tmp_path)
    rows = [json.loads(line) for line in report.splitlines()]
    assert list(audio) == [row["key"] for row in rows] == KEYS
    assert rows[0] == {
        "key": "a",
        "num_samples": 80,
        "num_units": 4,
        "stopped_by": "end",
    }


def test_a_second_run_opens_nothing(tmp_path):
    AudioOutput(tmp_path).fill(KEYS, 2, Source)

    def fail():
        raise AssertionError("opened though nothing is left to do")

    AudioOutput(tmp_path).fill(KEYS, 2, fail)


def test_a_killed_run_ends_like_an_unbroken_one(tmp_path):
    """The batch that lost one utterance is made again as it was, not a new one."""
    AudioOutput(tmp_path / "whole").fill(KEYS, 2, Source)
    with pytest.raises(KeyboardInterrupt):
        AudioOutput(tmp_path / "cut").fill(KEYS, 2, lambda: Source(dies_at=2))
    (tmp_path / "cut/audio/b.json").unlink()
    again = Source()

    AudioOutput(tmp_path / "cut").fill(KEYS, 2, lambda: again)

    assert again.batches == [["a", "b"], ["e"]]
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_samples_that_are_no_number_are_refused(tmp_path):
    with pytest.raises(ValueError, match="for 'a' has samples that are no number"):
        AudioOutput(tmp_path).write("a", np.array([np.nan], np.float32), 16000, {})


def test_any_id_that_a_table_holds_can_be_written(tmp_path):
    """The formatting stage lets them pass; here is too late to refuse."""
    keys = ["a%2Fb", "a/b", "a:b.c", "\u00e4"]  # sorted
    output = AudioOutput(tmp_path)
    for number, key in enumerate(keys, start=1):
        output.write(key, np.full(8, number / 8, np.float32), 16000, {})
    output.close(keys)

    assert AudioOutput(tmp_path).done == set(keys)
    audio, report = contents(tmp_path)
    assert {key: row[0] * 8 for key, row in audio.items()} == dict(
        zip(keys, (1, 2, 3, 4))
    )
    assert [json.loads(line)["key"] for line in report.splitlines()] == keys


def test_a_folder_of_older_names_is_gone_on_with(tmp_path):
    """Names were once ids as they are, and once quoted for the web."""
    output = AudioOutput(tmp_path)
    keys = ["a:b", "c%41", "d", "\u00e4"]
    for key in keys[:3]:
        for suffix in ("flac", "json"):
            (tmp_path / "audio" / f"{key}.{suffix}").write_text("{}")
    for suffix in ("flac", "json"):
        (tmp_path / "audio" / f"%C3%A4.{suffix}").write_text("{}")

    assert output.done == {"a:b", "d"}

    output.close(output.done)
    for key in keys[1::2]:
        output.write(key, np.zeros(8, np.float32), 16000, {})
    output.close(keys)
    assert output.done == set(keys)


@pytest.mark.parametrize(("step", "name"), [(0, "b.flac"), (1, "b.json")])
def test_a_full_disk_is_one_message_and_leaves_nothing_half_done(
    tmp_path, monkeypatch, step, name
):
    output = AudioOutput(tmp_path)
    audio = np.zeros(80, np.float32)
    output.write("a", audio, 16000, {})
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(kaldi.os, "fsync", full)
        with pytest.raises(OSError, match=f"no space left on the disk.*{name}"):
            output.write("b", audio, 16000, {})

    assert output.done == {"a"}
    left = {"a.flac", "a.json", "b.flac"} - ({"b.flac"} if step == 0 else set())
    assert {path.name for path in (tmp_path / "audio").iterdir()} == left
    output.write("b", audio, 16000, {})
    assert output.done == {"a", "b"}


def test_loud_samples_are_clipped_not_wrapped(tmp_path):
    output = AudioOutput(tmp_path)
    output.write("a", np.array([1.5, -2.0], np.float32), 16000, {})
    output.close(["a"])

    loud = contents(tmp_path)[0]["a"]
    assert loud[0] > 0.99 and loud[1] == -1.0
