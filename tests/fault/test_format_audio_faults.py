"""Formatting killed or out of disk space at any moment: the next run finishes it."""

import errno
import os

import numpy as np
import pytest
import soundfile
from fault_injection import Killed, Power

from espnet_taste.bin.format_audio import main
from espnet_taste.data import kaldi

NAMES = ("wav.scp", "text", "utt2spk", "spk2utt", "utt2num_samples", "excluded.jsonl")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    draw = np.random.default_rng(0)
    tables = {name: "" for name in ("wav.scp", "text", "utt2spk")}
    for number in range(8):
        key = f"u{number}"
        samples = draw.uniform(-0.5, 0.5, 3 if number == 5 else 1600 + number)
        soundfile.write(folder / f"{key}.wav", samples, 16000)
        tables["wav.scp"] += f"{key} {key}.wav\n"
        tables["text"] += f"{key} word {number}\n"
        tables["utt2spk"] += f"{key} s{number % 2}\n"
    for name, text in tables.items():
        (folder / name).write_text(text)
    return folder


def run(data, output):
    return main(["--data_dir", str(data), "--output_dir", str(output)])


def content(output):
    """All that a finished run leaves, without the folder's own name."""
    files = sorted(path for path in output.rglob("*") if path.is_file())
    found = {
        str(path.relative_to(output)): path.read_bytes()
        for path in files
        if path.name != ".journal.jsonl"
    }
    found["wav.scp"] = found["wav.scp"].replace(str(output).encode(), b"")
    return found


def test_killed_between_any_two_file_operations(tmp_path, data):
    assert run(data, tmp_path / "whole") == 0
    whole = content(tmp_path / "whole")
    assert set(NAMES) <= set(whole)

    last, killed = 0, True
    while killed:
        last += 3
        output = tmp_path / f"killed{last}"
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, last)
            try:
                run(data, output)
                killed = False
            except Killed:
                pass
        assert run(data, output) == 0
        assert content(output) == whole
    assert last > 60


@pytest.mark.parametrize("step", [1, 2, 6, 9, 11, 13])
def test_a_full_disk_is_one_message_and_nothing_half_written(
    tmp_path, data, monkeypatch, capsys, step
):
    assert run(data, tmp_path / "whole") == 0
    capsys.readouterr()
    calls = []

    def full_at_last(handle):
        calls.append(handle)
        if len(calls) >= step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(kaldi.os, "fsync", full_at_last)
        assert run(data, tmp_path / "out") == 1
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("format_audio: ") and "no space left" in message
    assert not list((tmp_path / "out").rglob("*.part"))

    assert run(data, tmp_path / "out") == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
