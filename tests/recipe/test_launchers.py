"""Which launcher starts what: on a cluster, work belongs on its nodes, GPUs are few."""

import pytest
from recipe_shell import UTILS, needs_espnet, once

pytestmark = needs_espnet


def test_single_processes_go_where_jobs_go(tmp_path):
    """The machine that submits jobs may have no GPU, and is not for work."""
    lines = """
cluster() { echo "submitted $*" >> log; "${@:4}" > $3; [ "${fails:-no}" = no ]; }
work() { echo "worked $*"; }
alone run.pl out.log work here
alone "cluster --gpu 1" out.log work there
"""
    result = once(tmp_path, lines)

    assert result.returncode == 0, result.stderr
    assert result.stdout == "worked here\n"
    assert (tmp_path / "log").read_text() == "submitted --gpu 1 out.log work there\n"
    failed = once(tmp_path, "fails=yes\n" + lines + "echo on")
    assert failed.returncode == 1 and failed.stdout == "worked here\n"
    assert "--- out.log\nworked there\n" in failed.stderr


def test_only_jobs_that_take_a_device_are_given_one(tmp_path):
    lines = """
python=split; nj=1; train_cmd="cluster cpu"; job_cmd="cluster gpu"
split() { for parts in out/.parts.*; do echo 1 > "${parts}/num_jobs"; done; }
cluster() { echo "$1 $5" >> log; }
jobs data out mel; jobs data out states --device cuda
"""
    result = once(tmp_path, lines)

    assert result.returncode == 0, result.stderr
    launched = (tmp_path / "log").read_text().split("\n")
    assert launched == ["cpu -m", "gpu -m", ""]


FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *split_keys*) echo 3 > out/.parts.states/num_jobs ;;
    *key_file*) echo "${CUDA_VISIBLE_DEVICES-none}" > "seen.${6##*.}" ;;
esac
"""


@pytest.mark.parametrize(
    ("given", "ngpu", "device", "seen"),
    [
        ("", 2, "cuda", ["1", "0", "1"]),
        ("export CUDA_VISIBLE_DEVICES=4,6,7", 2, "cuda", ["6", "7", "4"]),
        ("", 1, "cuda", ["none"] * 3),
        ("", 2, "", ["none"] * 3),
    ],
)
def test_jobs_of_one_machine_share_its_gpus(tmp_path, given, ngpu, device, seen):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    lines = f"""
export PATH={UTILS}:$PATH; {given}
python=$PWD/python; nj=3; ngpu={ngpu}; job_cmd="run.pl --gpu 1"
jobs data out states {"--device " + device if device else ""} 'a b'
"""
    result = once(tmp_path, "unset CUDA_VISIBLE_DEVICES" + lines)

    assert result.returncode == 0, result.stderr
    found = [(tmp_path / f"seen.{job}").read_text().strip() for job in (1, 2, 3)]
    assert found == seen
