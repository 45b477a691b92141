"""The runner: what python3 would run, with plugins, here and in new processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = """
import espnet_taste
espnet_taste.register("kinds:choices", "mine", dict)
"""
REGISTRY = """
class choices:
    name, base_type, classes = "kind", None, {}
"""
# The current folder changes, so that nothing is found there by chance.
SPAWNING = """
import multiprocessing, os, sys

def tell():
    import kinds
    print(sorted(kinds.choices.classes), sys.argv[1:], flush=True)

if __name__ == "__main__":
    os.chdir("/")
    process = multiprocessing.get_context("spawn").Process(target=tell)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""
STOCK = """
import torch

def tell(rank):
    from espnet2.tasks.asr import encoder_choices
    print(encoder_choices.get_class("taste_whisper").__name__, flush=True)

if __name__ == "__main__":
    torch.multiprocessing.spawn(tell, nprocs=1)
"""


@pytest.fixture
def run(tmp_path):
    """Return a function that gives words to the runner, in a folder with a plugin."""
    (tmp_path / "my_plugin.py").write_text(PLUGIN)
    (tmp_path / "kinds.py").write_text(REGISTRY)
    places = filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    variables = {"PYTHONPATH": os.pathsep.join(places)}

    def call(*words, stdin=None, plugins="my_plugin"):
        return subprocess.run(
            [sys.executable, "-m", "espnet_taste.run", *words],
            cwd=tmp_path,
            env={**os.environ, **variables, "ESPNET_TASTE_PLUGINS": plugins},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return call


@pytest.fixture
def script(tmp_path):
    """Return a function that writes a script into a folder of its own."""
    (tmp_path / "scripts").mkdir()

    def write(code):
        (tmp_path / "scripts" / "script.py").write_text(code)
        return "scripts/script.py"

    return write


def test_a_spawned_process_has_the_plugins(run, script):
    result = run(script(SPAWNING), "word")

    assert result.stdout == "['mine'] ['word']\n", result.stderr


def test_a_module_that_spawns_has_them_too(run, script):
    """As ESPnet's trainings and our jobs are started."""
    script(SPAWNING)

    result = run("-m", "scripts.script", "word")

    assert result.stdout == "['mine'] ['word']\n", result.stderr


@pytest.mark.slow
def test_a_stock_task_on_several_gpus_can_choose_our_encoder(run, script):
    result = run(script(STOCK), plugins="")

    assert result.stdout == "TasteWhisperEncoder\n", result.stderr


CODE = "import sys, kinds; print(__name__, sys.argv, list(kinds.choices.classes))"


@pytest.mark.parametrize("words", [("-c", CODE, "-m", "x"), ("-", "-m", "x")])
def test_code_is_run_as_by_python(run, words):
    result = run(*words, stdin=CODE)

    expected = f"__main__ {[words[0], '-m', 'x']} ['mine']\n"
    assert result.stdout == expected, result.stderr


def test_a_script_finds_what_lies_beside_it(run, script, tmp_path):
    path = script("import sys, beside; print(beside.NAME, sys.argv)")
    (tmp_path / "scripts" / "beside.py").write_text("NAME = 'beside'")

    result = run(path, "--help")

    assert result.stdout == f"beside {[path, '--help']}\n", result.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((), 2, "usage: python3 -m espnet_taste.run"),
        (("-m",), 2, "usage:"),
        (("-c",), 2, "usage:"),
        (("--help",), 0, "usage:"),
        (("-u", "x.py"), 1, "python3 -u -m espnet_taste.run"),
    ],
)
def test_no_program_to_run(run, words, code, told):
    result = run(*words)

    assert result.returncode == code and told in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
