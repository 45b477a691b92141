"""An ark writer killed at any moment and called again: nothing lost or doubled."""

import os
import random

import numpy as np
import pytest

from espnet_taste.data import kaldi
from espnet_taste.data.kaldi import ArkWriter, read_scp_arrays

KEYS = [f"u{number:02d}" for number in range(23)]


def array_of(key):
    number = int(key[1:])
    return np.arange(number + 1, dtype=np.float32) + 100 * number


def write_all(folder, chunk):
    written = []
    with ArkWriter(folder, "x", chunk=chunk) as writer:
        for key in KEYS:
            if key not in writer.done:
                writer(key, array_of(key))
                written.append(key)
    return written


def write_and_die(folder, chunk, step):
    """Run the writer in a child that dies at its ``step``-th system call of interest.

    The calls are those between which the disk looks different: opening, syncing,
    renaming and removing files.
    """
    pid = os.fork()
    if pid == 0:
        count = 0

        def dying(call):
            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                if count == step:
                    os._exit(9)
                return call(*args, **kwargs)

            return counted

        for name in ("fsync", "replace"):
            setattr(kaldi.os, name, dying(getattr(os, name)))
        for name in ("unlink", "open"):
            setattr(kaldi.Path, name, dying(getattr(kaldi.Path, name)))
        write_all(folder, chunk)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.parametrize("chunk", [5, 64])
def test_killed_anywhere_the_same_call_finishes(tmp_path, chunk):
    step = 0
    died = True
    while died:
        step += 1
        folder = tmp_path / str(step)
        died = write_and_die(folder, chunk, step)
        already = ArkWriter(folder, "x", chunk=chunk).done if died else set(KEYS)
        assert write_all(folder, chunk) == [key for key in KEYS if key not in already]

        arrays = read_scp_arrays(folder / "x.scp")
        assert list(arrays) == KEYS
        for key in KEYS:
            np.testing.assert_array_equal(arrays[key], array_of(key))
        arks = {value.rpartition(":")[0] for value in arrays.places.values()}
        assert {str(path) for path in folder.iterdir()} == arks | {f"{folder}/x.scp"}
    assert step > 5


def test_killed_again_and_again(tmp_path):
    draw = random.Random(0)
    deaths = 0
    while write_and_die(tmp_path, 3, draw.randint(1, 40)):
        deaths += 1
    assert deaths > 3
    arrays = read_scp_arrays(tmp_path / "x.scp")
    assert list(arrays) == KEYS
    for key in KEYS:
        np.testing.assert_array_equal(arrays[key], array_of(key))
