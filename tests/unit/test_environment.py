"""Provenance: the commit, the machine and file hashes."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from espnet_taste.eval import environment
from espnet_taste.eval.environment import (
    PACKAGES,
    describe_commit,
    describe_environment,
    describe_makers,
    hash_files,
)


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("needs git")
    (tmp_path / "file").write_text("1")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "file"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_changed_checkout_says_so(checkout):
    clean = describe_commit(checkout)
    (checkout / "untracked").write_text("1")
    assert describe_commit(checkout) == clean
    (checkout / "file").write_text("2")

    assert len(clean) == 40
    assert describe_commit(checkout) == f"{clean} with uncommitted changes"


def test_no_checkout_is_said(tmp_path):
    assert describe_commit(tmp_path) == "not a git checkout"


def test_a_package_inside_another_projects_checkout_is_no_checkout(checkout):
    package = checkout / "venv" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")

    assert describe_commit(package) == "not a git checkout"


def test_the_commit_is_that_of_this_package_wherever_it_runs(checkout, monkeypatch):
    """The recipe may be linked into ESPnet's checkout."""
    monkeypatch.chdir(checkout)

    found = describe_environment()["commit"]

    assert found == describe_commit(Path(environment.__file__).parent)
    assert found != describe_commit(checkout)


def test_every_line_has_a_value():
    found = describe_environment()

    assert set(PACKAGES) | {"date", "commit", "hardware", "python"} == set(found)
    assert all(found.values())
    assert "cores" in found["hardware"]


def test_files_are_named_by_their_hash(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_bytes(b"seed: 1\n")

    expected = hashlib.sha256(b"seed: 1\n").hexdigest()[:12]
    assert hash_files([path]) == {str(path): expected}
    with pytest.raises(FileNotFoundError):
        hash_files([tmp_path / "none.yaml"])


def test_who_made_scores_is_told_once_each():
    """The page may be written later, by another commit, on another machine."""
    notes = [
        {"date": "2026-02-02", "commit": "b", "hardware": "GPU", "judge": "x"},
        {"date": "2026-01-01", "commit": "a", "hardware": "GPU"},
        {"judge": "x"},
    ]

    assert describe_makers(notes) == {
        "date of the scores": "2026-01-01 to 2026-02-02",
        "commit of the scores": "a; b",
        "hardware of the scores": "GPU",
    }
    assert describe_makers(notes[2:]) == {}
