"""Which Python there is: what setup_env.sh asks of uv, and what path.sh takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_programs import THIS_PYTHON, write_script
from recipe_shell import RECIPE, ROOT, bash

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def setup_env(tmp_path):
    """Run setup_env.sh with a fake uv and compilers; tells what uv was asked to do."""
    folder = tmp_path / "checkout"
    shutil.copytree(TOOLS, folder / "tools")
    (folder / "requirements.lock").write_text("numpy==2\n")
    (folder / "setup.py").write_text("")
    write_script(
        tmp_path / "path" / "uv",
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo "uv 0.13.9 (test)"; exit; fi\n'
        f'echo "$@" "index=$UV_DEFAULT_INDEX" >>{folder}/uv.log\n'
        'if [ "$1" = venv ]; then\n'
        f"    mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python\n"
        "fi\n",
    )
    for name in ("bash", "sh", "cat", "cut", "cp", "dirname", "flock", "grep", "ln",
                 "mkdir", "rm", "sha256sum", "sort"):  # fmt: skip
        (tmp_path / "path" / name).symlink_to(shutil.which(name))
    for name in ("gcc", "g++", "make", "git", "perl", "awk"):
        write_script(tmp_path / "path" / name, "#!/bin/sh\n")

    def run(**env):
        (folder / "uv.log").write_text("")
        result = subprocess.run(
            ["bash", folder / "tools" / "setup_env.sh"],
            env={"PATH": str(tmp_path / "path"), "HOME": str(tmp_path)}
            | {"PYTHON": THIS_PYTHON, **env},
            capture_output=True,
            text=True,
            check=False,
        )
        return result, (folder / "uv.log").read_text().splitlines()

    return run


def first_words(calls):
    return [" ".join(call.split()[:2]) for call in calls]


def test_a_finished_environment_is_left_alone_and_a_changed_lock_is_not(
    setup_env, tmp_path
):
    install = ["pip install", "pip install"]

    result, calls = setup_env()
    assert result.returncode == 0, result.stderr
    assert first_words(calls) == ["venv --quiet", *install]
    assert setup_env()[1] == []
    (tmp_path / "checkout" / "requirements.lock").write_text("numpy==3\n")
    assert first_words(setup_env()[1]) == install
    assert first_words(setup_env(UV_TORCH_BACKEND="cpu")[1]) == ["pip install"]


def test_a_failed_installation_is_not_taken_for_a_finished_one(setup_env, tmp_path):
    setup_env()
    (tmp_path / "checkout" / "requirements.lock").write_text("numpy==3\n")
    uv = tmp_path / "path" / "uv"
    working = uv.read_text()
    uv.write_text(
        working.replace("#!/bin/sh\n", '#!/bin/sh\n[ "$1" != pip ] || exit 2\n')
    )
    assert setup_env()[0].returncode != 0
    uv.write_text(working)

    assert len(setup_env()[1]) == 2


def test_an_index_that_only_pip_knows_is_handed_on(setup_env):
    _, calls = setup_env(PIP_INDEX_URL="https://mirror.example/simple")

    assert all(call.endswith("index=https://mirror.example/simple") for call in calls)


def test_an_index_of_uv_is_left_as_it_is(setup_env):
    _, calls = setup_env(
        PIP_INDEX_URL="https://mirror.example/simple",
        UV_DEFAULT_INDEX="https://own.example/simple",
    )

    assert all(call.endswith("index=https://own.example/simple") for call in calls)


def test_missing_tools_are_named_with_their_packages(setup_env, tmp_path):
    (tmp_path / "path" / "perl").unlink()

    result, calls = setup_env()

    assert "apt-get install perl bc" in result.stderr
    assert result.returncode == 0 and calls, "the recipe wants them, not the set-up"


def test_without_a_compiler_nothing_is_installed(setup_env, tmp_path):
    (tmp_path / "path" / "g++").unlink()

    result, calls = setup_env()

    assert result.returncode == 1
    assert "apt-get install g++" in result.stderr
    assert calls == []


def test_a_checkouts_own_python_must_have_the_packages(tmp_path):
    """Installed checkouts have one, in which ESPnet alone is."""
    (tmp_path / "egs2/TEMPLATE/asr1/utils").mkdir(parents=True)
    activate = tmp_path / "tools" / "activate_python.sh"
    activate.parent.mkdir()
    work = tmp_path / "work"
    work.mkdir()

    def python_of(status):
        write_script(tmp_path / "bin" / "python3", f"#!/bin/sh\nexit {status}\n")
        activate.write_text(f"PATH={tmp_path}/bin:$PATH\n")
        source = f". {RECIPE}/path.sh && command -v python3"
        return bash("-c", source, cwd=work, ESPNET_ROOT=str(tmp_path)).stdout.strip()

    assert python_of(0) == f"{tmp_path}/bin/python3"
    assert python_of(1) == f"{ROOT}/.venv/bin/python3"
