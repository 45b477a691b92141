"""Benchmarks as the Hugging Face hub carries them: audio inside .parquet files.

They are unpacked into the folders in which they were published first, so that one
reader knows each benchmark.

Sources: the columns of huggingface.co/datasets/slprl/SALMon,
slprl/multispeaker-storycloze and fixie-ai/llama-questions.
"""

import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from espnet_taste.data.kaldi import atomic_write

# Columns of SALMon, and the number that ends the name of the file.
_SALMON_HALVES = {"positive_audio": 0, "negative_audio": 1}
# Columns of stories (``<name>_text``, ``<name>_audio``) and the ending of the files.
_STORY_HALVES = {"correct": "correct", "negative": "incorrect"}


def has_tables(folder: Path) -> bool:
    """Tell whether a download has .parquet files."""
    return next(folder.rglob("*.parquet"), None) is not None


def read_rows(
    folder: Path, columns: Sequence[str], remedy: str = ""
) -> Iterator[tuple[str, dict]]:
    """Yield the rows of all .parquet files below a folder, a few in memory at a time.

    Args:
        folder: Where the files lie.
        columns: Those that are read; all must be there.
        remedy: What the message about a missing one ends with.

    Yields:
        Where a row stands, for messages, and its values by column; audio is a mapping
        with ``bytes`` and ``path``.

    Raises:
        ValueError: If there are no files, one cannot be read, or a column is missing.
    """
    import pyarrow
    import pyarrow.parquet

    tables = sorted(folder.rglob("*.parquet"))
    if not tables:
        raise ValueError(f"{folder}: no .parquet files")
    for path in tables:
        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                _require_columns(table.schema_arrow.names, columns, path, remedy)
                yield from _rows_of(table, path, columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: not a .parquet file: {error}") from error


def _require_columns(
    names: Sequence[str], columns: Sequence[str], path: Path, remedy: str
) -> None:
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{path}: no column {missing}, there are {sorted(names)}{remedy}"
        )


def _rows_of(table, path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict]]:
    number = 0
    for batch in table.iter_batches(batch_size=16, columns=list(columns)):
        for row in batch.to_pylist():
            yield f"{path}, row {number}", row
            number += 1


def write_sound(sound: object, path: Path, where: str) -> None:
    """Write the audio of a row as .wav; what is not one yet is decoded.

    Args:
        sound: A mapping with ``bytes``, as the hub's tables hold audio.
        path: File to make.
        where: Where the row stands, for messages.

    Raises:
        ValueError: If there is no audio, or it cannot be decoded.
    """
    held = sound.get("bytes") if isinstance(sound, dict) else None
    if not held:
        raise ValueError(f"{where}: holds no audio for {path.name}")
    if not held.startswith(b"RIFF"):
        try:
            samples, rate_hz = soundfile.read(io.BytesIO(held), always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError(f"{where}: audio for {path.name}: {error}") from error
        decoded = io.BytesIO()
        soundfile.write(decoded, samples, rate_hz, format="WAV", subtype="PCM_16")
        held = decoded.getvalue()
    with atomic_write(path, "wb") as stream:
        stream.write(held)


def unpack_salmon(folder: Path, target: Path, parts: Sequence[str]) -> None:
    """Write SALMon's tables as ``<part>/sample_<number>_<0|1>.wav``.

    A pair that several tables hold, as the configuration of all parts does, is written
    once; parts that are not wanted are left aside.

    Args:
        folder: Where the .parquet files lie.
        target: Folder to make, in place of what it held.
        parts: Which are wanted: values of the column ``task``.

    Raises:
        ValueError: As ``read_rows`` and ``write_sound``, or if a pair has no number.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    written = set()
    for where, row in read_rows(folder, ("task", "ind", *_SALMON_HALVES)):
        part, number = row["task"], row["ind"]
        if part not in parts or (part, number) in written:
            continue
        if not isinstance(number, int):
            raise ValueError(f"{where}: 'ind' is {number!r}, expected a number")
        written.add((part, number))
        for column, half in _SALMON_HALVES.items():
            path = target / part / f"sample_{number}_{half}.wav"
            write_sound(row[column], path, where)


def unpack_stories(folder: Path, target: Path) -> None:
    """Write stories in several voices as ``<id>_<correct|incorrect>.wav`` and ``.txt``.

    Args:
        folder: Where the .parquet files lie.
        target: Folder to make, in place of what it held.

    Raises:
        ValueError: As ``read_rows`` and ``write_sound``, or if an id is repeated or
            cannot be the name of a file.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    columns = [f"{name}_{kind}" for name in _STORY_HALVES for kind in ("text", "audio")]
    written = set()
    for where, row in read_rows(folder, ("id", *columns)):
        name = str(row["id"])
        if name in written or not name.strip() or Path(name).name != name:
            why = "is repeated" if name in written else "cannot name a file"
            raise ValueError(f"{where}: id '{name}' {why}")
        written.add(name)
        for column, ending in _STORY_HALVES.items():
            stem = target / f"{name}_{ending}"
            write_sound(row[f"{column}_audio"], Path(f"{stem}.wav"), where)
            with atomic_write(f"{stem}.txt") as stream:
                stream.write((row[f"{column}_text"] or "") + "\n")
