"""The set-up scripts: broken interpreters, wrong archives, lost links, second calls."""

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from fake_programs import THIS_PYTHON, write_script

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"


def load_espnet_tree():
    """tools/espnet_tree.py as a module; tools/ is no package."""
    path = TOOLS / "espnet_tree.py"
    spec = importlib.util.spec_from_file_location("espnet_tree", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


espnet_tree = load_espnet_tree()


def make_shim(path, *, message="pyenv: not installed"):
    """A version manager's shim whose version is not selected."""
    return write_script(path, f"#!/bin/sh\necho '{message}' >&2\nexit 127\n")


def make_python(path):
    """A launcher of this very interpreter under another name."""
    return write_script(path, f'#!/bin/sh\nexec {THIS_PYTHON} "$@"\n')


# --- tools/find_python.sh ---------------------------------------------------


@pytest.fixture
def find_python(tmp_path):
    """Run the script with only our folders and the basic tools on PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "sh", "sort"):
        (tools / name).symlink_to(shutil.which(name))

    def run(**env):
        return subprocess.run(
            ["bash", TOOLS / "find_python.sh"],
            env={
                "PATH": f"{tmp_path / 'path'}:{tools}",
                "HOME": str(tmp_path / "home"),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def only_our_folders():
    """A Python 3.12 or 3.13 of the system would be found in any case."""
    return not any(
        path
        for pattern in (
            "usr/bin",
            "usr/local/bin",
            "opt/bin",
            "opt/*/bin",
            "opt/*/*/bin",
        )
        for path in Path("/").glob(f"{pattern}/python3.1[23]")
    )


def test_a_broken_shim_is_skipped(find_python, tmp_path):
    make_shim(tmp_path / "path" / "python3.12")
    make_python(tmp_path / "path" / "python3.13")

    result = find_python()

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == THIS_PYTHON


def test_a_version_behind_a_broken_shim_is_found(find_python, tmp_path):
    make_shim(tmp_path / "path" / "python3.12")
    make_python(tmp_path / "pyenv" / "versions" / "3.12.9" / "bin" / "python3.12")

    result = find_python(PYENV_ROOT=str(tmp_path / "pyenv"))

    assert result.stdout.strip() == THIS_PYTHON


def test_an_older_python_is_refused(find_python, tmp_path):
    older = "import sys; sys.version_info = (3, 9, 0); exec(sys.argv[1])"
    write_script(
        tmp_path / "path" / "python3.12",
        f"#!/bin/sh\nexec {THIS_PYTHON} -c '{older}' \"$2\"\n",
    )
    make_python(tmp_path / "pyenv" / "versions" / "3.13.1" / "bin" / "python3.13")

    result = find_python(PYENV_ROOT=str(tmp_path / "pyenv"), PYTHON="python3.12")

    assert result.stdout.strip() == THIS_PYTHON
    assert "PYTHON=python3.12: is Python 3.9" in result.stderr


def test_the_named_python_comes_first_and_a_bad_one_is_told(find_python, tmp_path):
    bad = make_shim(tmp_path / "bad")
    make_python(tmp_path / "path" / "python3.13")

    result = find_python(PYTHON=str(bad))

    assert result.stdout.strip() == THIS_PYTHON
    assert f"PYTHON={bad}: pyenv: not installed" in result.stderr


@pytest.mark.skipif(not only_our_folders(), reason="the system has a fitting Python")
def test_without_any_the_message_names_tries_and_remedies(find_python, tmp_path):
    shim = make_shim(tmp_path / "path" / "python3.12")

    result = find_python()

    assert result.returncode == 1
    assert result.stdout == ""
    assert f"{shim}: pyenv: not installed" in result.stderr
    assert "apt-get install python3.12-venv" in result.stderr


# --- tools/espnet_tree.py ---------------------------------------------------


@pytest.fixture
def tree(tmp_path):
    """An unpacked source distribution in small: no directory link left."""
    root = tmp_path / "source" / "espnet-1"
    for name in espnet_tree.NEEDED:
        write_script(root / name, "#!/bin/sh\n")
    (root / "version.txt").write_text("1\n")
    asr1 = root / "egs2" / "TEMPLATE" / "asr1"
    (asr1 / "steps").mkdir()
    (asr1 / "path.sh").touch()
    for recipe in ("TEMPLATE/tts1/sid", "TEMPLATE/tts2", "an4/asr1/local", "an4/tts1"):
        (root / "egs2" / recipe).mkdir(parents=True)
    (root / "egs2" / "only_st" / "st1").mkdir(parents=True)
    for recipe in ("TEMPLATE/tts2", "an4/asr1", "an4/tts1", "only_st/st1"):
        (root / "egs2" / recipe / "path.sh").touch()
    (root / "egs2" / "an4" / "conf").mkdir()  # beside the recipes, not one of them
    return root


@pytest.fixture
def archive(tree, tmp_path):
    path = tmp_path / "espnet-1.tar.gz"
    with tarfile.open(path, "w:gz") as target:
        target.add(tree, arcname=tree.name)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_lost_links_are_made_again(tree):
    made = espnet_tree.relink_tree(tree)

    egs2 = tree / "egs2"
    assert os.readlink(egs2 / "an4/asr1/utils") == "../../TEMPLATE/asr1/utils"
    assert os.readlink(egs2 / "TEMPLATE/tts2/pyscripts") == "../asr1/pyscripts"
    assert os.readlink(egs2 / "TEMPLATE/tts2/sid") == "../tts1/sid"
    assert os.readlink(egs2 / "an4/tts1/local") == "../asr1/local"
    assert (egs2 / "an4/tts1/steps").is_dir()
    links = [path for path in egs2.rglob("*") if path.is_symlink()]
    assert len(links) == made == 4 * 4 + 2
    # Nothing to link to: a dangling link would hide that.
    assert not os.path.lexists(egs2 / "only_st/st1/local")
    assert all(link.exists() for link in links)
    assert not (egs2 / "an4/conf/utils").exists()


def test_relinking_leaves_alone_what_is_there(tree):
    own = tree / "egs2" / "an4" / "asr1" / "utils"
    own.mkdir()
    espnet_tree.relink_tree(tree)

    assert espnet_tree.relink_tree(tree) == 0
    assert not own.is_symlink()
    assert not (tree / "egs2" / "TEMPLATE" / "asr1" / "utils").is_symlink()


def test_unpacking_keeps_modes_and_replaces_an_old_tree(archive, tmp_path):
    root = tmp_path / "made" / "espnet"
    (root / "stale").mkdir(parents=True)
    (root.parent / "espnet.unpacking.killed").mkdir()

    espnet_tree.unpack_tree(archive, root, sha256=digest(archive).upper())

    assert os.access(root / espnet_tree.NEEDED[0], os.X_OK)
    assert (root / "egs2" / "an4" / "asr1" / "steps").is_symlink()
    assert [path.name for path in root.parent.iterdir()] == ["espnet"]
    assert not (root / "stale").exists()


def test_a_wrong_digest_is_refused_before_anything_is_unpacked(
    archive, tmp_path, capsys
):
    root = tmp_path / "made" / "espnet"

    status = espnet_tree.main(["unpack", str(archive), str(root), "--sha256", "0" * 64])

    assert status == 1
    message = capsys.readouterr().err
    assert digest(archive) in message and str(archive) in message
    assert not root.parent.exists()


def test_an_archive_without_recipes_leaves_the_old_tree(tmp_path, capsys):
    (tmp_path / "espnet-1").mkdir()
    archive = tmp_path / "espnet-1.tar.gz"
    with tarfile.open(archive, "w:gz") as target:
        target.add(tmp_path / "espnet-1", arcname="espnet-1")
    root = tmp_path / "made" / "espnet"
    (root / "old").mkdir(parents=True)

    command = ["unpack", str(archive), str(root), "--sha256", digest(archive)]

    assert espnet_tree.main(command) == 1
    assert "parse_options.sh" in capsys.readouterr().err
    assert [path.name for path in root.parent.iterdir()] == ["espnet"]
    assert (root / "old").is_dir()


# --- tools/get_espnet.sh ----------------------------------------------------


@pytest.fixture
def checkout(tmp_path, archive):
    """A copy of the tools, with a pip that hands out ``archive``."""
    folder = tmp_path / "checkout"
    shutil.copytree(TOOLS, folder / "tools")
    script = folder / "tools" / "get_espnet.sh"
    text = script.read_text().replace("202611\n", "1\n", 1)
    recorded = next(li for li in text.splitlines() if li.startswith("sha256="))
    script.write_text(text.replace(recorded, f"sha256={digest(archive)}"))
    write_script(
        folder / ".venv" / "bin" / "python",
        "#!/bin/sh\n"
        'if [ "$2" = pip ]; then\n'
        f"    echo called >>{folder}/pip.log\n"
        '    while [ "$1" != --dest ]; do shift; done\n'
        f'    mkdir -p "$2" && exec cp {archive} "$2"\n'
        "fi\n"
        f'exec {THIS_PYTHON} "$@"\n',
    )
    return folder


def get_espnet(checkout, *, cwd=None, **env):
    return subprocess.run(
        [checkout / "tools" / "get_espnet.sh"],
        cwd=cwd or checkout,
        env={k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"} | env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tree_is_fetched_once(checkout):
    results = [get_espnet(checkout), get_espnet(checkout)]

    assert [r.returncode for r in results] == [0, 0], results[0].stderr
    assert {r.stdout for r in results} == {f"{checkout}/.espnet\n"}
    assert (checkout / "pip.log").read_text() == "called\n"
    assert not (checkout / ".espnet.download").exists()


def test_another_file_than_the_recorded_one_is_refused(checkout, archive):
    archive.write_bytes(archive.read_bytes() + b"x")

    result = get_espnet(checkout)

    assert result.returncode == 1
    assert "expected" in result.stderr and "sha256" in result.stderr
    assert not (checkout / ".espnet").exists()


def test_espnet_root_is_used_as_it_is(checkout, tree):
    result = get_espnet(checkout, cwd=tree.parent, ESPNET_ROOT=tree.name)

    assert result.stdout == f"{tree}\n"
    assert not (checkout / "pip.log").exists()


def test_an_unusable_espnet_root_is_named(checkout, tmp_path):
    result = get_espnet(checkout, ESPNET_ROOT=str(tmp_path / "nowhere"))

    assert result.returncode == 1
    assert f"{tmp_path}/nowhere has no egs2/TEMPLATE" in result.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("place", ["environment", "arguments"])
@pytest.mark.parametrize("root", ["../my/espnet", "/my/espnet", ""])
def test_make_passes_on_where_a_relative_espnet_root_is(place, root):
    """`make demo` runs the recipe in another folder."""
    given = {"ESPNET_ROOT": root} if place == "environment" else {}
    arguments = [] if given else [f"ESPNET_ROOT={root}"]
    outer = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS")  # of make test
    environment = {k: v for k, v in os.environ.items() if k not in outer}
    rule = 'tell: ; @echo "<$$ESPNET_ROOT>"'

    result = subprocess.run(
        ["make", "--silent", "--eval", rule, "tell", *arguments],
        cwd=ROOT, env={**environment, **given}, capture_output=True, text=True,
    )  # fmt: skip

    expected = root and os.path.normpath(ROOT / root)
    assert result.stdout == f"<{expected}>\n", result.stderr
