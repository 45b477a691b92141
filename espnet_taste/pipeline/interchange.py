"""Tokens of many utterances in one file: JSON lines, one an utterance.

``docs/tokens.md`` is the format. Floats are written so short that reading them gives
back the same float32. Files are read lazily, by the place of every line, and whatever
is wrong with one is told as ``file:line`` with the utterance.

Symbols: W words, Q codebooks, D TASTE width, Ta Whisper tokens.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from espnet_taste.data.kaldi import atomic_write, check_key
from espnet_taste.pipeline.tokens import FORMAT, VERSION, TasteTokens

# Type and number of axes of every array.
ARRAYS = {
    "speaker": (np.float32, 1),
    "asr_tokens": (np.int64, 1),
    "asr_words": (np.int64, 1),
    "codes": (np.int64, 2),
    "embeds": (np.float32, 2),
    "times": (np.float32, 2),
}
REQUIRED = ("words", "span_s", "models", "speaker", "asr_tokens", "asr_words")


class Place(NamedTuple):
    """Where an utterance stands in a file."""

    offset: int  # bytes
    line: int  # from 1
    num_words: int


def to_row(key: str, tokens: TasteTokens) -> dict[str, Any]:
    """Return the fields of an utterance's line.

    Args:
        key: Its id.
        tokens: At least one word. Embeddings are left out where there are codes, which
            give them back.

    Raises:
        ValueError: If the id cannot stand in a Kaldi table, there is no word, one has
            blanks inside, or a number is not finite.
    """
    check_key(key)
    if len(tokens) == 0:
        raise ValueError(f"'{key}' has no words; there is nothing to write")
    if bad := [word for word in tokens.words if not _is_word(word)]:
        raise ValueError(f"'{key}' has words with blanks inside, e.g. {bad[0]!r}")
    row = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "words": list(tokens.words),
        "times": None,
        "codes": None,
        "span_s": [float(edge) for edge in tokens.span_s],
        "models": dict(tokens.models),
    }
    for name, (dtype, _) in ARRAYS.items():
        array = getattr(tokens, name)
        if array is None or (name == "embeds" and tokens.codes is not None):
            continue
        if not np.isfinite(array).all():
            raise ValueError(f"'{key}': {name} holds numbers that are not finite")
        array = np.asarray(array, dtype=dtype)
        row[name] = (_short(array) if dtype == np.float32 else array).tolist()
    return row


def to_line(key: str, tokens: TasteTokens) -> bytes:
    """Return an utterance's line with its line break; errors as ``to_row``."""
    row = to_row(key, tokens)
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _short(array: np.ndarray) -> np.ndarray:
    """Return doubles with few digits that become the same float32 again."""
    exact = array.astype(np.float64)
    short = np.array([float(str(x)) for x in array.ravel()]).reshape(array.shape)
    return np.where(short.astype(np.float32) == array, short, exact)


def from_row(row: Any, where: str) -> tuple[str, TasteTokens]:
    """Read the fields of a line; also those of a row of the Hugging Face dataset.

    Args:
        row: The parsed line.
        where: ``file:line`` for messages.

    Returns:
        Utterance id and tokens.

    Raises:
        ValueError: If it is no such row, of a later version, lacks a field, or a field
            does not fit.
    """
    key = _key_of(row, where)
    place = f"{where}: '{key}'"
    missing = [name for name in REQUIRED if row.get(name) is None]
    if missing:
        raise ValueError(f"{place}: no field {missing}")
    words, models = row["words"], row["models"]
    if not isinstance(words, list) or not all(_is_word(word) for word in words):
        raise ValueError(f"{place}: words must be a list of words, got {words!r:.60}")
    if not isinstance(models, dict):
        raise ValueError(f"{place}: models must name roles, got {models!r:.60}")
    span = _numbers(row["span_s"], np.float64, 1, f"{place}: span_s")
    arrays = {
        name: _numbers(row[name], *kind, f"{place}: {name}")
        for name, kind in ARRAYS.items()
        if row.get(name) is not None
    }
    for name, pair in (("span_s", span), ("times", arrays.get("times"))):
        if pair is not None and pair.shape[-1] != 2:
            raise ValueError(f"{place}: {name} must have a start and an end in s")
    span = tuple(span.tolist())
    try:
        return key, TasteTokens(tuple(words), span_s=span, models=models, **arrays)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _key_of(row: Any, where: str) -> str:
    """Return the id of a row of this format and of a version that is known."""
    if not isinstance(row, Mapping) or row.get("format") != FORMAT:
        raise ValueError(f"{where}: no TASTE tokens: expected format '{FORMAT}'")
    key, version = row.get("key"), row.get("version")
    if not isinstance(key, str):
        raise ValueError(f"{where}: the key must be a string, got {key!r:.60}")
    try:
        check_key(key)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise ValueError(
            f"{where}: '{key}' is of version {version!r}, this program knows 1 to "
            f"{VERSION}; update espnet-taste"
        )
    return key


def _is_word(word: Any) -> bool:
    """Tell whether a word is one; with a blank inside, it would be two in tables."""
    return isinstance(word, str) and bool(word) and not set(word) & set(" \t\r\n")


def _numbers(values: Any, dtype: type, ndim: int, what: str) -> np.ndarray:
    """Return an array, refusing what is no table of finite numbers of that type."""
    try:
        array = np.array(values)
    except ValueError as error:
        raise ValueError(f"{what}: its rows differ in length") from error
    kinds = "i" if np.issubdtype(dtype, np.integer) else "if"
    if array.ndim != ndim or array.dtype.kind not in kinds:
        wanted = "whole numbers" if kinds == "i" else "numbers"
        raise ValueError(
            f"{what}: expected {wanted} with {ndim} axes, got shape {array.shape} of "
            f"type {array.dtype}"
        )
    with np.errstate(over="ignore"):
        array = array.astype(dtype)  # what float32 cannot hold becomes infinite
    if not np.isfinite(array).all():
        raise ValueError(f"{what}: not all numbers are finite")
    return array


class TokenFile(Mapping[str, TasteTokens]):
    """The tokens of a file, read one by one when asked for.

    Args:
        path: JSON lines.
        forgive_last: Drop a last line without line break, which a killed writer left,
            from the file; otherwise it is an error.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is broken or an id is repeated; it names the line.
    """

    def __init__(self, path: str | Path, *, forgive_last: bool = False):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"no TASTE tokens at {self.path}")
        if forgive_last:
            _cut_last(self.path)
        self.places: dict[str, Place] = {}
        with self.path.open("rb") as stream:
            offset = 0
            for number, line in enumerate(stream, start=1):
                where = f"{self.path}:{number}"
                row = _parse(line, where)
                key = _key_of(row, where)
                if key in self.places:
                    raise ValueError(
                        f"{where}: '{key}' is repeated, it is also in line "
                        f"{self.places[key].line}"
                    )
                words = row.get("words")
                count = len(words) if isinstance(words, list) else 0
                self.places[key] = Place(offset, number, count)
                offset += len(line)

    def line(self, key: str) -> bytes:
        """Return the line of an utterance as it is in the file."""
        with self.path.open("rb") as stream:
            stream.seek(self.places[key].offset)
            return stream.readline()

    def digest(self, key: str) -> str:
        """Return what tells the tokens of an utterance from others of its id."""
        return hashlib.sha256(self.line(key)).hexdigest()[:16]

    def __getitem__(self, key: str) -> TasteTokens:
        """Read one utterance.

        Raises:
            KeyError: If there is none of this id.
            ValueError: If its line does not hold tokens; see ``from_row``.
        """
        where = f"{self.path}:{self.places[key].line}"
        return from_row(_parse(self.line(key), where), where)[1]

    def __contains__(self, key: object) -> bool:
        return key in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _parse(line: bytes, where: str) -> Any:
    if not line.endswith(b"\n"):
        raise ValueError(f"{where}: the last line was cut short")
    try:
        return json.loads(line)
    except ValueError as error:  # also of bytes that are no UTF-8
        raise ValueError(f"{where}: not JSON: {error}") from error


def _cut_last(path: Path) -> None:
    """Remove what follows the last line break."""
    with path.open("r+b") as stream:
        end = kept = stream.seek(0, 2)
        while kept > 0:
            start = max(0, kept - 65536)
            stream.seek(start)
            found = stream.read(kept - start).rfind(b"\n")
            kept = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        if kept < end:
            stream.truncate(kept)


def append_tokens(path: str | Path, batch: Mapping[str, TasteTokens]) -> None:
    """Add utterances to a file; they survive a kill from here on.

    Args:
        path: The file, made with its folder if needed; it must end with a whole line
            (see ``TokenFile``, ``forgive_last``).
        batch: Utterance id to tokens.

    Raises:
        ValueError: As ``to_row``; nothing of the batch is written then.
        OSError: If the disk is full or the file cannot be written.
    """
    lines = b"".join(to_line(key, tokens) for key, tokens in batch.items())
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        stream.write(lines)


def write_tokens(path: str | Path, tokens: Mapping[str, TasteTokens]) -> None:
    """Write a file that appears under its name only when complete, sorted by id.

    Raises:
        ValueError: As ``to_row``.
        OSError: If it cannot be written.
    """
    with atomic_write(path, "wb") as stream:
        for key in sorted(tokens):
            stream.write(to_line(key, tokens[key]))


def join_files(
    parts: Iterable[str | Path], keys: Iterable[str], path: str | Path
) -> list[str]:
    """Write the lines of several files in one, in one step.

    Args:
        parts: Files of this format; ``path`` may be among them. Where two have an
            utterance, the first one's is taken.
        keys: Utterances wanted, in this order; those that no part has are left out.
        path: File to make or replace.

    Returns:
        The ids written.
    """
    files = [TokenFile(part, forgive_last=True) for part in parts]
    written = []
    with atomic_write(path, "wb") as stream:
        for key in keys:
            found = next((file for file in files if key in file), None)
            if found is not None:
                stream.write(found.line(key))
                written.append(key)
    return written
