"""The golden tests pass, unchanged, on a pack of other sizes, lengths and seeds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fabricated_checkpoint import write_checkpoint_case
from fabricated_completion import write_completion
from fabricated_frontend import write_frontend
from fabricated_logic import write_logic
from fabricated_pack import write_rvq
from fabricated_slm import write_slm
from fabricated_tower import write_tower
from fabricated_unit_lm import write_unit_lm
from fabricated_voice import write_flow, write_hift

FOLDER = Path(__file__).parent
WRITERS = (
    write_tower,
    write_rvq,
    write_unit_lm,
    write_slm,
    write_completion,
    write_logic,
    write_flow,
    write_hift,
    write_checkpoint_case,
    write_frontend,
)
# Names and shapes of the released size are no case of a pack: it has one size.
MAY_SKIP = re.compile("full_keys|voice_generator_keys|needs the vocabulary")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_other_sizes(tmp_path):
    """Our own modules made this pack: it shows that nothing is hard-coded, no more.

    Only bounds, mel frames, time grid and spans of ``fabricated_logic`` are written by
    the formulas of the specification instead.

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
    skipped = [li for li in report.splitlines() if li.startswith("SKIPPED")]
    assert [line for line in skipped if not MAY_SKIP.search(line)] == []
    for name in (
        "test_checkpoint.py::test_unit_lm",
        "test_completion.py::test_units_of_every_run",
        "test_coverage.py::test_every_result_was_compared",
        "test_delay.py::test_every_recorded_layout",
        "test_flow.py::test_the_mel_spectrogram",
        "test_frontend.py::test_filter_bank_of_the_speaker_encoder",
        "test_hift.py::test_waveform",
        "test_residual_vq.py::test_train_step",
        "test_slm.py::test_training_step",
        "test_state_machine.py::test_every_recorded_trace",
        "test_tower.py::test_whole_tower",
        "test_unit_lm.py::test_incremental_decoding",
    ):
        assert f"PASSED tests/golden/{name}" in report, report
