"""Jobs in processes: every key once, errors come through, devices in turn."""

import os
import signal
from argparse import Namespace

import pytest

from espnet_taste.bin import parallel


def write_keys(args, keys, job):
    """Work of a job; a process of its own finds it here by name."""
    if args.fails == "error" and job == 1:
        raise ValueError("job 1 cannot")
    if args.fails == "kill" and job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    (args.folder / f"{job}").write_text(f"{os.getpid()} {' '.join(keys)}")


def options(folder, nj, fails="", ngpu=0):
    return Namespace(folder=folder, nj=nj, fails=fails, ngpu=ngpu, device=None)


@pytest.fixture
def importable(monkeypatch):
    """Let a new process find this file under the name that it has here."""
    folder = os.path.dirname(__file__)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(write_keys, "__module__", "test_parallel")
    import test_parallel

    return test_parallel.write_keys


def test_processes_share_the_keys(tmp_path, importable):
    parallel.in_processes(importable, options(tmp_path, 2), list("abcde"))

    rows = [(tmp_path / n).read_text().split() for n in "01"]
    assert [row[1:] for row in rows] == [["a", "b"], ["c", "d", "e"]]
    assert len({rows[0][0], rows[1][0], str(os.getpid())}) == 3


@pytest.mark.parametrize(
    ("fails", "words"), [("error", "job 1 cannot"), ("kill", "a job was killed")]
)
def test_a_job_that_fails_is_told(tmp_path, importable, fails, words):
    with pytest.raises(ValueError, match=words):
        parallel.in_processes(importable, options(tmp_path, 2, fails), ["a", "b"])


def test_one_job_needs_no_process(tmp_path):
    parallel.in_processes(write_keys, options(tmp_path, 1), ["a", "b"])
    assert (tmp_path / "0").read_text() == f"{os.getpid()} a b"

    parallel.in_processes(write_keys, options(tmp_path / "no", 4), [])


@pytest.mark.parametrize(("nj", "ngpu"), [(0, 0), (1, -1)])
def test_numbers_out_of_range_are_refused(tmp_path, nj, ngpu):
    with pytest.raises(ValueError, match="--nj must be at least 1 and --ngpu 0"):
        parallel.in_processes(write_keys, options(tmp_path, nj, ngpu=ngpu), ["a"])


def test_devices_are_dealt_out():
    args = options(None, None, ngpu=2)

    assert [parallel.device_of(args, job) for job in range(3)] == [
        "cuda:0",
        "cuda:1",
        "cuda:0",
    ]
    assert parallel.device_of(options(None, None), 1) == "cpu"
    args.device = "mps"
    assert parallel.device_of(args, 1) == "mps"
