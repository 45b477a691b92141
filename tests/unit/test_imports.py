"""Importing is quick and quiet; every command answers --help without loading torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A module of bin without a main is a part that commands share.
COMMANDS = sorted(
    path.stem
    for path in (ROOT / "espnet_taste" / "bin").glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8")
)
HEAVY = {"torch", "transformers", "espnet2", "peft"}

# Seconds are of processor time: a wall clock on a busy machine proves nothing.
PROBE = """
import contextlib, io, json, os, runpy, sys
status = 0
with contextlib.redirect_stdout(io.StringIO()) as out:
    try:
        {statement}
    except SystemExit as stop:
        status = stop.code or 0
times = os.times()
report = {{
    "status": status,
    "output": out.getvalue(),
    "modules": sorted({{name.split(".")[0] for name in sys.modules}}),
    "cpu_s": times.user + times.system,
}}
print(json.dumps(report))
"""


def probe(statement: str) -> dict:
    """Run one statement in a fresh interpreter and report what it loaded and said."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return {**json.loads(result.stdout), "errors": result.stderr}


def test_importing_the_package_is_quick_quiet_and_loads_nothing_heavy():
    report = probe("import espnet_taste")

    assert HEAVY & set(report["modules"]) == set()
    assert report["cpu_s"] < 1.0
    assert report["output"] == report["errors"] == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_at_once(command):
    name = f"espnet_taste.bin.{command}"
    report = probe(
        f"sys.argv = ['{command}', '--help'];"
        f" runpy.run_module('{name}', run_name='__main__')"
    )

    assert report["status"] == 0
    assert "usage:" in report["output"]
    assert HEAVY & set(report["modules"]) == set()
    assert report["cpu_s"] < 2.0


def test_the_probe_sees_status_output_and_modules():
    report = probe("import sqlite3; print('usage: x'); sys.exit(3)")

    assert report["status"] == 3
    assert report["output"] == "usage: x\n"
    assert "sqlite3" in report["modules"]


def test_there_are_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("module", ["tokenizer", "speech", "spoken_lm"])
def test_using_a_model_does_not_wait_for_the_base_of_espnets_tasks(module):
    """It imports trainers, front-ends and text-to-speech: ten seconds a process."""
    code = (
        f"import sys, espnet_taste.pipeline.{module}; "
        "print(*sorted(name for name in sys.modules if name.startswith('espnet2.')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert result.stderr == ""
    loaded = result.stdout.split()
    assert "espnet2.train.class_choices" in loaded
    assert {"espnet2.tasks.abs_task", "espnet2.train.trainer"}.isdisjoint(loaded)
