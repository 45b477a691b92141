"""Optional packages: there, absent, and there but broken."""

import json
import sys

import pytest

from espnet_taste.packages import MissingPackageError, require


def test_an_installed_package_is_imported():
    assert require("json") is json


def test_an_absent_package_comes_with_its_install_command():
    with pytest.raises(MissingPackageError, match=r"needs no_such.*espnet-taste\[eval"):
        require("no_such")


def test_a_broken_package_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_dependency\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("half_there")
