"""Kaldi-style tables and arks: read strictly, write so that a kill loses nothing.

A table is a text file of ``key value`` lines. An ark holds float32 vectors or
matrices, a script file (scp) names the place of each of them. ESPnet's reader takes
the same files; everything that is not float32 is refused because it reads int32
vectors 65 times slower and int matrices not at all.
"""

import errno
import os
import re
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import kaldiio
import numpy as np

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a file for writing that appears under its name only when complete.

    Args:
        path: File to make; its folder is made if needed.
        mode: "w" for UTF-8 text, "wb" for bytes.

    Yields:
        The open temporary file. If the body raises, the temporary file is removed and
        ``path`` stays as it was.

    Raises:
        OSError: If the file cannot be written; a full disk is named as such.
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    with _naming_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Always the same name: what a killed run left is overwritten by the next.
        hidden = path.with_name(f".{path.name}.part")
        try:
            with hidden.open(mode, encoding=encoding) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(hidden, path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise


@contextmanager
def _naming_full_disk(path: Path) -> Iterator[None]:
    """Say which file did not fit; the system's own message names none."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        raise OSError(
            error.errno,
            "no space left on the disk; make room and run the same command again",
            str(path),
        ) from error


def read_table(path: str | Path, keys: Container[str] | None = None) -> dict[str, str]:
    """Read a table of ``key value`` lines in file order.

    Args:
        path: UTF-8 file. Blank lines are skipped; a value may be empty and may hold
            blanks.
        keys: Read the lines of these only, so that a job of many need not hold the
            whole corpus; None reads all.

    Returns:
        Key to value, without the blanks around the value.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a key is repeated (naming both lines) or the file is not UTF-8.
    """
    path = Path(path)
    table: dict[str, str] = {}
    for number, key, value in _read_rows(path):
        if keys is not None and key not in keys:
            continue
        if key in table:
            first = next(n for n, other, _ in _read_rows(path) if other == key)
            raise ValueError(
                f"{path}:{number}: id '{key}' is repeated, it is also in line {first}; "
                "ids must be unique"
            )
        table[key] = value
    return table


def _read_rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, key and value of every line that has a key."""
    try:
        # newline="\n": other separators that str.splitlines knows belong to the text.
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                key, *value = re.split(r"[ \t]+", line.strip(" \t\r\n"), maxsplit=1)
                if key:
                    yield number, key, "".join(value)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from error


def write_table(path: str | Path, rows: Mapping[str, str]) -> None:
    """Write a table sorted by key as ``LC_ALL=C sort`` does, in one step.

    Args:
        path: File to make or replace.
        rows: Key to value.

    Raises:
        ValueError: If a key is empty or holds a blank, or a value holds a line break.
        OSError: If the file cannot be written.
    """
    for key, value in rows.items():
        check_key(key)
        if "\n" in value or "\r" in value:
            raise ValueError(f"{path}: the value of '{key}' holds a line break")
    with atomic_write(path) as stream:
        # UTF-8 keeps code point order, so this is the order of the encoded bytes.
        for key in sorted(rows):
            stream.write(f"{key} {rows[key]}".rstrip(" ") + "\n")


def check_key(key: str) -> None:
    """Refuse an utterance id that a Kaldi table cannot hold."""
    if not key or re.search(r"\s", key):
        raise ValueError(f"an id must be non-empty and without blanks, got {key!r}")


class ScpArrays(Mapping[str, np.ndarray]):
    """The arrays of a script file, read one by one when asked for.

    Args:
        scp: Lines ``key ark:offset``; relative paths of arks as in ``find_file``.
        keys: As of ``read_table``.
    """

    def __init__(self, scp: str | Path, keys: Container[str] | None = None):
        self.scp = Path(scp)
        self.places = read_table(scp, keys)

    def __getitem__(self, key: str) -> np.ndarray:
        return read_array(self.places[key], key, self.scp)

    def length(self, key: str) -> int:
        """Return the number of rows of an array, of most kinds without reading it."""
        return read_array(self.places[key], key, self.scp, read=_read_length)

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def read_scp_arrays(scp: str | Path, keys: Container[str] | None = None) -> ScpArrays:
    """Open a script file as a lazy mapping from key to array.

    Args:
        scp: Script file made by ``ArkWriter`` or by Kaldi tools.
        keys: Which lines to hold, as of ``read_table``.

    Returns:
        Mapping from key to vector (N,) or matrix (R, C). A missing key is a
        ``KeyError``, a broken ark a ``ValueError`` that names key and file.
    """
    return ScpArrays(scp, keys)


def find_file(value: str, folder: Path) -> Path:
    """Find a path of a table: from the working directory, the table's, the recipe's.

    Args:
        value: The path.
        folder: Folder of the table.

    Returns:
        The first that exists, else the path as it is.
    """
    path = Path(value)
    if path.is_absolute() or path.exists():
        return path
    for place in (folder, recipe_folder(folder)):
        if place is not None and (place / path).exists():
            return place / path
    return path


def recipe_folder(folder: Path) -> Path | None:
    """Return what holds ``data/<set>`` or ``dump/<kind>/<set>``; None for other names.

    The recipes of Kaldi and ESPnet run there, and their tables count from it.
    """
    for parent in list(folder.resolve().parents)[:2]:
        if parent.name in ("data", "dump"):
            return parent.parent
    return None


def split_ark_place(value: str) -> tuple[str, int] | None:
    """Split ``file:offset``; None if the value is not of this form."""
    match = re.fullmatch(r"(.+):(\d+)", value)
    return (match[1], int(match[2])) if match else None


def read_array(
    value: str, key: str, scp: Path, read: Callable[[IO[bytes]], Any] | None = None
) -> Any:
    """Read one float array, refusing anything else an ark may hold.

    Args:
        value: ``file:offset``.
        key: Its id, for messages.
        scp: Script file that names it.
        read: What to read at that place instead of the array.

    Returns:
        (N,) or (R, C), float32, or what ``read`` returns.

    Raises:
        ValueError: If it cannot be read; key and file are named.
    """
    place = split_ark_place(value)
    if place is None:
        raise ValueError(f"{scp}: '{key}': expected file:offset, got '{value}'")
    path = find_file(place[0], scp.parent)
    try:
        with path.open("rb") as stream:
            stream.seek(place[1])
            return (read or _read_float32)(stream)
    except (ValueError, AssertionError, struct.error) as error:
        raise ValueError(
            f"{scp}: '{key}': cannot read {path} at byte {place[1]} ({error}); the "
            "ark is cut off or was replaced"
        ) from error


def _read_float32(stream: IO[bytes]) -> np.ndarray:
    """Read the array at the stream's position.

    kaldiio would return a shorter vector from an ark that was cut off, and would
    unpickle what a foreign ark holds; so the common forms are read here and it gets
    only the other binary ones (doubles, compressed matrices, int32 vectors).
    """
    start = stream.tell()
    sizes = _read_sizes(stream)
    if sizes is not None:
        data = stream.read(4 * int(np.prod(sizes)))
        # A copy: arrays over bytes are read-only.
        return np.frombuffer(data, "<f4").reshape(sizes).astype(np.float32)
    stream.seek(start)
    return kaldiio.matio.read_kaldi(stream)


def _read_sizes(stream: IO[bytes]) -> tuple[int, ...] | None:
    """Read the head of a float32 array; None of another binary object."""
    head = stream.read(5)
    if head in (b"\0BFV ", b"\0BFM "):
        num_sizes = 1 if head[3:4] == b"V" else 2
        return struct.unpack("<" + "bi" * num_sizes, stream.read(5 * num_sizes))[1::2]
    if head[:2] != b"\0B":
        raise ValueError("not a binary Kaldi object")
    return None


def _read_length(stream: IO[bytes]) -> int:
    """Read how many rows the array at the stream's position has."""
    start = stream.tell()
    sizes = _read_sizes(stream)
    if sizes is None:
        stream.seek(start)
        return len(kaldiio.matio.read_kaldi(stream))
    stop = stream.tell() + 4 * int(np.prod(sizes))
    if stop > os.fstat(stream.fileno()).st_size:
        raise ValueError(f"{sizes} values do not fit")
    return sizes[0]
