"""A conversion needs no more memory than 1.3 times the largest file it reads.

Measured in a process of its own, against a warm one: what is counted includes the pages
of the files that are read.
"""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_released import BACKBONE, CONFIG, released_state, write_checkpoint

from espnet_taste.convert.checkpoint import Options, convert

TESTS = Path(__file__).parents[1]
ROWS = 1_000_000  # of every vocabulary; 16 to 32 MB a table
LARGE_BACKBONE = replace(BACKBONE, whisper={**BACKBONE.whisper, "vocab_size": ROWS})


def large_config():
    config = copy.deepcopy(CONFIG)
    config["text_config"]["vocab_size"] = ROWS
    config["speech_decoder_config"]["text_token_size"] = ROWS
    return config


def used_bytes(kind):
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    (line,) = (line for line in lines if line.startswith(kind))
    return 1024 * int(line.split()[1])


def measure(folder):
    """Convert there and back twice; return the peaks of the second time in bytes."""
    options = Options(LARGE_BACKBONE)
    peaks = []
    for attempt in ("cold", "warm"):
        target = folder / attempt
        target.mkdir()
        steps = [
            (folder / "source", target / "ours", "espnet_taste"),
            (target / "ours", target / "back", "official"),
        ]
        peaks = []
        for source, made, layout in steps:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak
            before = used_bytes("VmRSS")
            convert(source, made, to=layout, options=options)
            peaks.append(used_bytes("VmHWM") - before)
    return peaks


def largest(folder):
    return max(path.stat().st_size for path in folder.rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_memory(tmp_path):
    config = large_config()
    state = released_state(config, LARGE_BACKBONE)
    write_checkpoint(tmp_path / "source", state, num_shards=3, config=config)
    program = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(Path(__file__).parent)!r}]\n"
        "from pathlib import Path; from test_convert_memory import measure\n"
        f"print(*measure(Path({str(tmp_path)!r})))"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    there, back = map(int, run.stdout.split())
    total = sum(tensor.nbytes for tensor in state.values())
    assert largest(tmp_path / "source") < 0.6 * total  # else this proves nothing
    assert there < 1.3 * largest(tmp_path / "source")
    assert back < 1.3 * largest(tmp_path / "warm" / "ours")
