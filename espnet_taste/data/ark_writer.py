"""Write arrays into arks so that a kill at any moment loses nothing.

An ark holds float32 vectors or matrices, a script file (scp) names the place of each of
them; ``kaldi.py`` reads both, and so does ESPnet.
"""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import kaldiio
import numpy as np

from espnet_taste.data.kaldi import (
    atomic_write,
    check_key,
    read_array,
    read_table,
    write_table,
)


class ArkWriter:
    """Write arrays by key; killed at any time, the same call goes on where it was.

    Arrays are collected in chunks. A chunk is a file ``<name>.chunk<n>.ark`` that
    appears complete with its part of the index; ``close`` joins the parts into
    ``<name>.scp``. A new writer of the same name takes up every chunk on disk, so
    that callers need only skip the keys in ``done``.

    Args:
        directory: Folder of the files, made if needed. The script file holds paths
            that start with this folder as given, as Kaldi's own tools do.
        name: Stem of the files. Two writers may share a folder, not a name.
        chunk: Arrays a file holds; at most so many are lost by a kill.
        max_wait_s: Longest wait of an array, so that slow extractors lose no hours.
        keys: What the script file may list of what an earlier run left; None for all.
            A job among several gives its part: with another number of jobs, what it
            finds may be another one's to list.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        chunk: int = 64,
        *,
        max_wait_s: float = 30.0,
        keys: Iterable[str] | None = None,
    ):
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        self.directory = Path(directory)
        self.name = name
        self.chunk = chunk
        self.max_wait_s = max_wait_s
        self._keys = None if keys is None else frozenset(keys)
        self._waiting_since = 0.0
        self.scp = self.directory / f"{name}.scp"
        self._pending: dict[str, np.ndarray] = {}
        self._places = self._take_up()
        self.done = set(self._places)  # keys that are written or waiting to be
        self._next = 1 + max(map(self._number, self._files("ark")), default=0)

    def __call__(self, key: str, array: np.ndarray) -> None:
        """Add one array.

        Args:
            key: Its id, not in ``done``.
            array: (N,) or (R, C), float32, not empty, all finite.

        Raises:
            ValueError: If the key is repeated or the array is anything else.
        """
        check_key(key)
        if key in self.done:
            raise ValueError(f"{self.scp}: '{key}' is written twice")
        _check_array(key, array, self.scp)
        # A copy: callers reuse their buffers while the array waits for its chunk.
        self._pending[key] = np.array(array, order="C")
        self.done.add(key)
        now = time.monotonic()
        if len(self._pending) == 1:
            self._waiting_since = now
        is_late = now - self._waiting_since > self.max_wait_s
        if len(self._pending) >= self.chunk or is_late:
            self.flush()

    def stored(self, key: str) -> np.ndarray:
        """Return what an earlier run left of a key in ``done``."""
        return read_array(self._places[key], key, self.scp)

    def flush(self) -> None:
        """Write what is waiting as one chunk."""
        if not self._pending:
            return
        ark = self.directory / f"{self.name}.chunk{self._next}.ark"
        places = {}
        with atomic_write(ark, "wb") as stream:
            for key, array in self._pending.items():
                stream.write(key.encode() + b" ")
                places[key] = f"{ark}:{stream.tell()}"
                kaldiio.matio.write_array(stream, array)
        # The index comes last: a chunk without it counts as not written.
        write_table(ark.with_suffix(".scp"), places)
        self._places.update(places)
        self._pending.clear()
        self._next += 1

    def close(self) -> None:
        """Write the rest and the complete script file."""
        self.flush()
        if self._keys is not None:
            self._places = {k: v for k, v in self._places.items() if k in self._keys}
            self.done &= self._keys
        write_table(self.scp, self._places)
        for part in self._files("scp"):
            part.unlink()

    def __enter__(self) -> "ArkWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        elif not isinstance(error, OSError):
            # What is complete is kept for the next run, but nothing may look finished.
            self.flush()

    def _take_up(self) -> dict[str, str]:
        """Read the index of what an earlier run left and remove what has none."""
        places = read_table(self.scp) if self.scp.exists() else {}
        for part in self._files("scp"):
            places.update(read_table(part))
        indexed = {Path(value.rpartition(":")[0]).name for value in places.values()}
        for ark in self._files("ark"):
            if ark.name not in indexed:
                ark.unlink()
        for left in self.directory.glob(f".{glob_escape(self.name)}.chunk*.part"):
            left.unlink(missing_ok=True)
        return places

    def _files(self, suffix: str) -> list[Path]:
        """List the chunk files of this writer, ordered by number."""
        found = self.directory.glob(f"{glob_escape(self.name)}.chunk*.{suffix}")
        return sorted(found, key=self._number)

    def _number(self, path: Path) -> int:
        """Return the chunk number in a file name."""
        return int(path.stem.rpartition(".chunk")[2])


def glob_escape(name: str) -> str:
    """Quote a name for use in ``Path.glob``."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _check_array(key: str, array: np.ndarray, scp: Path) -> None:
    """Refuse what a reader could not use, naming the key."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        found = getattr(array, "dtype", type(array).__name__)
        raise ValueError(f"{scp}: '{key}': expected a float32 array, got {found}")
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(
            f"{scp}: '{key}': expected a non-empty vector or matrix, got shape "
            f"{array.shape}"
        )
    if not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise ValueError(f"{scp}: '{key}': {bad} of {array.size} values are not finite")
