"""Split work over parallel jobs and put what they wrote together again.

Every program that goes over utterances takes ``--data_dir``, an optional
``--key_file`` and ``--output_dir``; a job is such a program with a part of the
keys. Nothing here knows what is computed.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.kaldi import (
    atomic_write,
    read_scp_arrays,
    read_table,
    write_table,
)

# Tables of a data folder from which utterance ids are taken, most specific first.
# Ids that stand only in "text" are kept: they must be counted as lacking audio.
KEY_TABLES = (("segments", "wav.scp"), ("text",))


def utterance_ids(data_dir: str | Path) -> list[str]:
    """List the utterances of a Kaldi-style folder, sorted.

    Args:
        data_dir: Folder with wav.scp, and text or segments if there are any.

    Returns:
        Ids of segments (or else wav.scp) and of text, each once.

    Raises:
        FileNotFoundError: If there is no wav.scp.
    """
    folder = Path(data_dir)
    if not (folder / "wav.scp").is_file():
        raise FileNotFoundError(
            f"no wav.scp in {folder}; is it a prepared data folder?"
        )
    keys: set[str] = set()
    for names in KEY_TABLES:
        found = next((n for n in names if (folder / n).is_file()), None)
        if found is not None:
            keys.update(read_table(folder / found))
    return sorted(keys)


def read_keys(data_dir: str | Path, key_file: str | Path | None) -> list[str]:
    """Return the utterances a job works on.

    Args:
        data_dir: Kaldi-style folder; its wav.scp names the utterances.
        key_file: First column names a subset; None for all.

    Returns:
        Ids in the order of the file.

    Raises:
        ValueError: If the subset names an unknown utterance.
    """
    scp = Path(data_dir) / "wav.scp"
    if key_file is None:
        return list(read_table(scp))
    keys = list(read_table(key_file))
    known = read_table(scp, frozenset(keys))
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ValueError(f"{key_file}: '{unknown[0]}' is not in {data_dir}/wav.scp")
    return keys


def next_utterances(data_dir: str | Path) -> dict[str, str]:
    """Return the next utterance of every utterance of a set, the last one's the first.

    One that says the same is passed over: exchanging it would exchange nothing, and a
    decoder that reads its text would seem not to. The exchange partner of a score comes
    from the whole set, so that neither batches nor job splits change a number.

    Raises:
        ValueError: If there is only one utterance, or all say the same.
    """
    keys = read_keys(data_dir, None)
    if len(keys) < 2:
        raise ValueError(
            f"{data_dir} has one utterance, there is none to exchange with"
        )
    table = Path(data_dir) / "text"
    texts = read_table(table) if table.is_file() else {}
    words = [texts.get(key, key).casefold().split() for key in keys]
    partner: dict[int, int] = {}
    # Backwards, and twice, since the last ones go on with the first ones.
    for index in [*reversed(range(len(keys)))] * 2:
        following = (index + 1) % len(keys)
        if words[following] != words[index]:
            partner[index] = following
        elif following in partner:
            partner[index] = partner[following]
    if len(partner) < len(keys):
        raise ValueError(
            f"all utterances of {data_dir} say the same, there is nothing to exchange"
        )
    return {key: keys[partner[index]] for index, key in enumerate(keys)}


def split_keys(keys: list[str], num_jobs: int, output_dir: Path) -> int:
    """Write ``keys.1`` to ``keys.n`` and ``num_jobs``.

    Returns:
        Number of jobs, at most one a key.

    Raises:
        ValueError: If there are no keys or ``num_jobs`` is below 1.
    """
    if num_jobs < 1:
        raise ValueError(f"the number of jobs must be at least 1, got {num_jobs}")
    if not keys:
        raise ValueError("no utterances to work on")
    num_jobs = min(num_jobs, len(keys))
    for job in range(num_jobs):
        part = keys[job * len(keys) // num_jobs : (job + 1) * len(keys) // num_jobs]
        write_table(output_dir / f"keys.{job + 1}", dict.fromkeys(part, ""))
    with atomic_write(output_dir / "num_jobs") as stream:
        stream.write(f"{num_jobs}\n")
    return num_jobs


def write_lengths(scp: Path, output: Path) -> None:
    """Write how long every array of a table is: ESPnet makes its batches by it.

    By their heads: the mel frames of 1,000 hours are 100 GB.
    """
    arrays = read_scp_arrays(scp)
    write_table(output, {key: str(arrays.length(key)) for key in arrays})


def merge_jobs(parts_dir: Path, output_dir: Path) -> list[str]:
    """Join the output folders ``1`` to ``n`` of the jobs.

    Tables are joined and sorted, JSON lines are concatenated, and the counts of
    ``*.json`` are added. Arks and audio stay where the jobs wrote them.

    Returns:
        Names of the files written.

    Raises:
        FileNotFoundError: If a job's folder lacks a file that another one has, or all
            are empty, as a shared file system may show them for some seconds.
        ValueError: If two jobs wrote the same utterance.
    """
    num_jobs = int((parts_dir / "num_jobs").read_text())
    folders = [parts_dir / str(job + 1) for job in range(num_jobs)]
    names = sorted({p.name for f in folders for p in f.glob("*") if _is_merged(p)})
    if not names:
        raise FileNotFoundError(
            f"no job has left anything in {parts_dir}; run the same command again, and "
            f"if that does not help, see {parts_dir}/log.*"
        )
    for name in names:
        paths = [folder / name for folder in folders]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(
                    f"no {path}, which another job has; run the same command again, "
                    f"and if that does not help, remove {parts_dir}"
                )
        if name.endswith(".json"):
            _merge_counts(paths, output_dir / name)
        elif name.endswith((".jsonl", ".ctm", ".tsv")):
            _concatenate(paths, output_dir / name)
        else:
            _merge_tables(paths, output_dir / name)
    return names


def _is_merged(path: Path) -> bool:
    hidden = path.name.startswith(".") or ".chunk" in path.name
    return path.is_file() and not hidden and path.suffix not in (".ark", ".flac")


def _merge_tables(paths: list[Path], output: Path) -> None:
    joined: dict[str, str] = {}
    for path in paths:
        table = read_table(path)
        twice = joined.keys() & table.keys()
        if twice:
            raise ValueError(
                f"{path}: '{min(twice)}' was also written by another job; remove "
                f"{path.parent.parent} to make it again"
            )
        joined.update(table)
    write_table(output, joined)


def _concatenate(paths: list[Path], output: Path) -> None:
    with atomic_write(output) as stream:
        for index, path in enumerate(paths):
            stream.writelines(_lines_without_header(path, index))


def _lines_without_header(path: Path, index: int) -> Iterator[str]:
    """Yield the lines; a ``#`` header only of the first file."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if index == 0 or not line.startswith("#"):
                yield line


def _merge_counts(paths: Iterable[Path], output: Path) -> None:
    total: dict = {}
    for path in paths:
        total = _added(total, json.loads(path.read_text(encoding="utf-8")))
    with atomic_write(output) as stream:
        json.dump(total, stream, indent=2, sort_keys=True)
        stream.write("\n")


def _added(left: dict, right: dict) -> dict:
    """Add numbers, join dictionaries, keep everything else of the first."""
    result = dict(left)
    for key, value in right.items():
        if isinstance(value, dict):
            result[key] = _added(result.get(key, {}), value)
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            result.setdefault(key, value)
        else:
            result[key] = result.get(key, 0) + value
    return result
