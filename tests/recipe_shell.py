"""The recipe's shell for tests: where it is, and functions of it without a stage."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "egs2" / "taste"
ESPNET = Path(os.environ.get("ESPNET_ROOT", ROOT / ".espnet"))
UTILS = ESPNET / "egs2/TEMPLATE/asr1/utils"

needs_espnet = pytest.mark.skipif(
    not (UTILS / "parse_options.sh").exists(),
    reason="no ESPnet tree; run tools/get_espnet.sh or set ESPNET_ROOT",
)


def bash(*args, cwd=RECIPE, **env):
    """Run bash; further arguments are variables of its environment."""
    return subprocess.run(
        ["bash", *args],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


ONCE = """
set -euo pipefail
expdir=exp; tag=t; corpus=c; datadir=data; dumpdir=dump; at_once=1
train_set=tr; valid_set=cv; test_sets=te
cmd_backend=local; train_cmd=run.pl; cuda_cmd=run.pl; gpu_inference=false; dry_run=false
language=en; spell_numbers=true; judge=Systran/faster-whisper-base
inference_model=valid.loss.best.pth
fail() { echo "fail: $*" >&2; exit 2; }
log() { echo "$*"; }
exp=exp
. "$1"/marks.sh
. "$1"/running.sh
"""


def once(tmp_path, script):
    """Run lines of shell with the functions of running.sh, in a folder."""
    return bash("-c", ONCE + script, "bash", str(RECIPE), cwd=tmp_path)


def dry(*args):
    """Run the recipe of the demo's corpus without running its commands."""
    return bash("run.sh", "--corpus", "mini_an4", "--dry_run", "true", *args)


def commands_of(stage, *options):
    """Return the words of the commands of one stage, name first."""
    out = dry("--stage", stage, "--stop_stage", stage, *options).stdout
    return [
        line.split("espnet_taste.bin.")[1].split()
        for line in out.splitlines()
        if "espnet_taste.bin." in line
    ]
