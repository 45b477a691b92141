"""Which launcher starts what: on a cluster, work belongs on its nodes, GPUs are few."""

import pytest
from recipe_shell import bash, needs_espnet, once

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


@pytest.mark.parametrize(
    ("aligner", "places"),
    [("pocketsphinx", []), ("whisper", ["cuda"]), ("ctc", ["cuda"])],
)
def test_aligners_that_run_a_network_run_it_on_a_gpu(aligner, places):
    options = ("--stage", "align", "--stop_stage", "align", "--at_once", "1")
    options += ("--gpu_inference", "true", "--aligner", aligner, "--dry_run", "true")
    result = bash("run.sh", "--corpus", "mini_an4", *options)

    assert result.returncode == 0, result.stderr
    aligned = result.stdout.split(" align --aligner ")[1:]
    assert len(aligned) == 3
    for line in aligned:
        words = line.split()
        assert [b for a, b in zip(words, words[1:]) if a == "--device"] == places
