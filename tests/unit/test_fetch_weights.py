"""The command: what it prints, what it returns, that asking for help is quick."""

import errno
import subprocess
import sys

import pytest

from espnet_taste.bin import fetch_weights
from espnet_taste.weights import cache as weight_cache
from espnet_taste.weights.catalog import ENTRIES


def test_known_names_are_listed(capsys):
    assert fetch_weights.main(["--list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in listed] == [entry.name for entry in ENTRIES]


def test_names_are_printed_with_folder_and_fingerprint(tmp_path, capsys):
    (tmp_path / "model.bin").write_bytes(b"")
    cache = ["--cache-dir", str(tmp_path / "cache")]

    assert fetch_weights.main([str(tmp_path), *cache]) == 0
    name, folder, digest = capsys.readouterr().out.strip().split("\t")
    assert (name, folder) == (str(tmp_path), str(tmp_path))
    assert digest.startswith("e3b0c44298fc1c14")  # sha256 of nothing


def test_one_failure_does_not_stop_the_others(tmp_path, capsys):
    (tmp_path / "model.bin").write_bytes(b"")
    cache = ["--cache-dir", str(tmp_path / "cache"), "--offline"]

    assert fetch_weights.main(["no/such", str(tmp_path), *cache]) == 1
    captured = capsys.readouterr()
    assert "fetch_weights: weights 'no/such' not found. Looked in" in captured.err
    assert captured.out.startswith(str(tmp_path))


def test_no_name_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as stopped:
        fetch_weights.main([])
    assert stopped.value.code == 2
    assert "give a NAME, or --all-default" in capsys.readouterr().err


def test_resolving_from_the_cache_imports_no_heavy_package():
    program = (
        "import sys, espnet_taste.weights.resolver, espnet_taste.bin.fetch_weights; "
        "print(sorted({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_disk_without_locks_is_told_and_used(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(weight_cache.fcntl, "flock", refuse)

    with weight_cache.locked(tmp_path, "a/b"):
        pass

    assert "a--b.lock cannot be locked (No locks available)" in caplog.text
