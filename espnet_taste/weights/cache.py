"""Our own weight cache: folder layout, lock, manifest, all-or-nothing arrival.

    weights/<org>--<name>/    finished weights and their manifest.json
    work/<org>--<name>/       downloads and half-made folders, resumable
    locks/<org>--<name>.lock  one process at a time fetches a name
    digests/                  noted sha256 of files

A folder below ``weights`` is complete or absent: it is made below ``work`` on the
same file system and renamed.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
CACHE_VARIABLE = "ESPNET_TASTE_CACHE"
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_HUB_FOLDER = re.compile(r"models--(.+)")

logger = logging.getLogger(__name__)


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Return the cache folder: the given one, else the variable's, else the default."""
    chosen = cache_dir or os.environ.get(CACHE_VARIABLE) or "~/.cache/espnet_taste"
    return Path(chosen).expanduser().absolute()


def is_valid_name(name: str) -> bool:
    """Tell whether a string is a weight name: ``name`` or ``organisation/name``."""
    return _NAME.fullmatch(name) is not None


def weights_folder(root: Path, name: str) -> Path:
    """Return where the finished weights of a name lie."""
    return root / "weights" / name.replace("/", "--")


def work_folder(root: Path, name: str) -> Path:
    """Return where the weights of a name are downloaded and made."""
    return root / "work" / name.replace("/", "--")


def name_of(folder: Path) -> str:
    """Return the name of weights by their folder, or the folder's path."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return str(manifest["name"])
    # Hugging Face cache: .../models--org--name/snapshots/<commit>
    match = _HUB_FOLDER.fullmatch(folder.parent.parent.name)
    if match is not None and folder.parent.name == "snapshots":
        return match.group(1).replace("--", "/")
    return str(folder)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read what is recorded about a finished folder; None where there is none.

    Raises:
        ValueError: If the manifest is damaged.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}: not JSON ({error.msg}); delete {folder} and fetch again"
        ) from error
    if not isinstance(values, dict) or "name" not in values:
        return None
    return values


@contextlib.contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold the lock of one name; the system releases it if the process dies.

    Raises:
        OSError: If the cache folder cannot be written.
    """
    path = root / "locks" / f"{name.replace('/', '--')}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write to the weight cache {root} ({error.strerror}); "
            f"point ${CACHE_VARIABLE} to a folder that can be written",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that fetches %s", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have none; what is fetched appears whole anyway.
            logger.warning(
                "%s cannot be locked (%s): let no other process fetch %s, or point $%s "
                "to another disk",
                *(path, error.strerror, name, CACHE_VARIABLE),
            )
        yield


def let_read(folder: Path) -> None:
    """Give the files of a folder to whom the folder itself is given.

    safetensors keeps what it writes to its writer, whatever the umask says, and groups
    share caches and models.
    """
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def publish(made: Path, target: Path) -> None:
    """Move a finished folder to its place in one step, replacing an outdated one."""
    let_read(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    outdated = made.with_name(made.name + ".outdated")
    shutil.rmtree(outdated, ignore_errors=True)
    if target.exists():
        os.rename(target, outdated)
    os.rename(made, target)
    shutil.rmtree(outdated, ignore_errors=True)
