"""The golden tests pass, unchanged, on a pack of other sizes, lengths and seeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fabricated_logic import write_logic
from fabricated_pack import write_rvq
from fabricated_slm import write_slm
from fabricated_unit_lm import write_unit_lm

FOLDER = Path(__file__).parent
WRITERS = (write_rvq, write_unit_lm, write_slm, write_logic)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_sizes(tmp_path):
    """Our own modules made this pack: it shows that nothing is hard-coded, no more.

    The run includes ``test_coverage.py``, so that every result was compared there.
    """
    for seed, write in enumerate(WRITERS, start=20):
        write(tmp_path, seed)
    options = ["-q", "-rA", "-m", "", "-p", "no:cacheprovider"]
    own = ["--ignore", __file__]

    process = subprocess.run(
        [sys.executable, "-m", "pytest", FOLDER, *options, *own],
        env={**os.environ, "TASTE_GOLDEN_DIR": str(tmp_path)},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
    )

    report = process.stdout + process.stderr
    assert process.returncode == 0, report
    for name in (
        "test_coverage.py::test_every_result_was_compared",
        "test_delay.py::test_every_recorded_layout",
        "test_residual_vq.py::test_train_step",
        "test_slm.py::test_training_step",
        "test_state_machine.py::test_every_recorded_trace",
        "test_unit_lm.py::test_incremental_decoding",
    ):
        assert f"PASSED tests/golden/{name}" in report, report
