"""An ark writer killed at any moment and called again: nothing lost or doubled."""

import random
import subprocess
import sys

import numpy as np
import pytest
from fault_injection import Killed, Power

from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import read_scp_arrays

KEYS = [f"u{number:02d}" for number in range(16)]


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


def write_and_die(folder, chunk, last):
    """Run the writer until file operation number ``last``; True if it was killed."""
    with pytest.MonkeyPatch.context() as patch:
        Power(patch, last)
        try:
            write_all(folder, chunk)
        except Killed:
            return True
    return False


def check_complete(folder):
    arrays = read_scp_arrays(folder / "x.scp")
    assert list(arrays) == KEYS
    for key in KEYS:
        np.testing.assert_array_equal(arrays[key], array_of(key))
    arks = {value.rpartition(":")[0] for value in arrays.places.values()}
    assert {str(path) for path in folder.iterdir()} == arks | {f"{folder}/x.scp"}


@pytest.mark.parametrize("chunk", [4, 64])
def test_killed_anywhere_the_same_call_finishes(tmp_path, chunk):
    last = 0
    while write_and_die(tmp_path / str(last), chunk, last):
        folder = tmp_path / str(last)
        already = ArkWriter(folder, "x", chunk=chunk).done
        assert write_all(folder, chunk) == [key for key in KEYS if key not in already]
        check_complete(folder)
        last += 1
    assert last > 10


def test_killed_again_and_again(tmp_path):
    draw = random.Random(0)
    kills = 0
    while write_and_die(tmp_path, 2, draw.randint(10, 30)):
        kills += 1
    assert kills > 3
    check_complete(tmp_path)


DYING = """
import os, sys
import numpy as np
from espnet_taste.data.ark_writer import ArkWriter
with ArkWriter(sys.argv[1], "x", chunk=4) as writer:
    for number in range(int(sys.argv[2])):
        key = f"u{number:02d}"
        writer(key, np.arange(number + 1, dtype=np.float32) + 100 * number)
    os._exit(9)
"""


def test_a_process_that_really_died(tmp_path):
    done = subprocess.run([sys.executable, "-c", DYING, str(tmp_path), "14"])

    assert done.returncode == 9
    assert write_all(tmp_path, 4) == KEYS[12:]
    check_complete(tmp_path)
