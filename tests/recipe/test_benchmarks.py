"""A benchmark that cannot run measures nothing; numbers are no matter of a test."""

import subprocess
import sys
from pathlib import Path

import pytest

from espnet_taste.layers.precision import has_bfloat16

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["unit_lm", "tokenizer"])
def test_a_training_step_is_timed_packed_and_padded(model):
    options = ["--threads", "1", "--steps", "1", "--units", "60", "--model", model]

    process = subprocess.run(
        [sys.executable, FOLDER / "bench_packing.py", *options],
        capture_output=True,
        text=True,
    )

    assert process.returncode == 0, process.stderr
    best = "packed bfloat16" if has_bfloat16("cpu") else "no packed bfloat16"
    assert f"\n{model}, cpu" in f"\n{process.stdout}"
    for variant in ("padded float32", "packed float32", best, "ratio"):
        assert variant in process.stdout
