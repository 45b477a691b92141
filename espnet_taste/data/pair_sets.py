"""Sets of audio pairs of which one half should be likelier than the other.

Readers of the folders in which benchmarks are published, and one table of our own
(``pairs``: pair, part, utterance that should win, utterance that should lose) that all
of them become.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from espnet_taste.data.kaldi import atomic_write

FIELDS = ("pair", "part", "positive", "negative")
# Beside a table of pairs that we made: kind, how many were made, how many wanted.
MADE = "num_pairs"
NO_MOMENT = "-"  # in a table of moments: nothing is said to change
SALMON_PARTS = (
    "bg_alignment",
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_alignment",
    "sentiment_consistency",
    "speaker_consistency",
)
SALMON_PAIRS = 200  # a part
# Parts of sWUGGY: words that LibriSpeech has, and others.
IN_VOCABULARY, OUT_OF_VOCABULARY = "_in_vocabulary", "_oov"
_TEXT_COLUMNS = ("transcription", "word")  # of sLM21's sentences and words
_ITEM_COLUMNS = ("type", "subtype", "id", "voice")  # sBLIMP numbers within subtypes
_SALMON_FILE = re.compile(r"sample_(\d+)_([01])\.wav")
_STORY_FILE = re.compile(r"(\d+)_.+_(correct|incorrect)\.wav")


@dataclass(frozen=True)
class Pair:
    """Two utterances; the positive one should be the likelier."""

    pair: str
    part: str
    positive: str  # utterance ids
    negative: str


@dataclass(frozen=True)
class PairSet:
    """Pairs, where the audio of their halves lies, and what is said if it is known."""

    pairs: tuple[Pair, ...]
    audio: dict[str, Path]  # utterance id to file
    text: dict[str, str] = field(default_factory=dict)  # of all utterances or of none


def read_salmon(folder: Path, parts: Sequence[str] = SALMON_PARTS) -> PairSet:
    """Read ``salmon_benchmark``: a folder a part, ``sample_<number>_<0|1>.wav``.

    File 0 is the consistent or aligned one.

    Args:
        folder: Where the parts lie.
        parts: Which must be there; others are left aside.

    Raises:
        ValueError: If a part or a half is missing, or a file is called otherwise.
    """
    missing = [name for name in parts if not (folder / name).is_dir()]
    if missing:
        raise ValueError(
            f"{folder}: no {', '.join(missing)}; the download is not complete, or name "
            "the parts that are wanted with --parts"
        )
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for part in parts:
        for path in sorted((folder / part).iterdir()):
            match = _match(_SALMON_FILE, path, "sample_<number>_<0 or 1>.wav")
            half = "positive" if match[2] == "0" else "negative"
            found.setdefault((part, f"{part}-{int(match[1]):04d}"), {})[half] = path
    if empty := [name for name in parts if name not in {part for part, _ in found}]:
        raise ValueError(
            f"{folder}: no pairs in {', '.join(empty)}; the download is not complete"
        )
    return _join(found)


def read_storycloze(folder: Path, part: str = "storycloze") -> PairSet:
    """Read spoken StoryCloze: ``<number>_<id>_<correct|incorrect>.wav`` in one folder.

    An even number is a right ending, the odd one after it is the wrong ending to it.

    Raises:
        ValueError: If a file is called otherwise, or a half is missing.
    """
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(folder.glob("*.wav")):
        match = _match(_STORY_FILE, path, "<number>_<id>_<correct or incorrect>.wav")
        number, half = int(match[1]), match[2]
        if (number % 2 == 0) != (half == "correct"):
            raise ValueError(
                f"{path}: even numbers are correct endings, odd ones incorrect"
            )
        name = "positive" if half == "correct" else "negative"
        found.setdefault((part, f"{part}-{number // 2:05d}"), {})[name] = path
    if not found:
        raise ValueError(f"{folder}: no .wav files")
    return _join(found)


def read_zerospeech(folder: Path, part: str) -> PairSet:
    """Read sWUGGY or sBLIMP of ZeroSpeech's sLM21: ``gold.csv`` beside its audio.

    Rows of one ``id`` and ``voice`` (and ``type`` and ``subtype``, where there are)
    belong together; ``correct`` is 1 for the word or the grammatical sentence. What is
    said stands in ``transcription`` or ``word``. With a column ``frequency``, words
    that LibriSpeech lacks (0, ``oov`` or nothing) are a part of their own.

    Raises:
        ValueError: If columns, texts or halves are missing.
    """
    path = folder / "gold.csv"
    halves: dict[str, dict[str, dict[str, str]]] = {}
    for row in _gold_rows(path):
        columns = [row[name] for name in _ITEM_COLUMNS if row.get(name)]
        name = "-".join([part, *columns]).replace(" ", "_")
        half = "positive" if row["correct"] == "1" else "negative"
        if half in halves.setdefault(name, {}):
            raise ValueError(f"{path}: pair {name} has two of one kind")
        halves[name][half] = row
    found, text = {}, {}
    for name, rows in halves.items():
        known = rows.get("positive", {})
        found[part + _vocabulary(known, path), name] = {
            half: folder / f"{Path(row['filename']).stem}.wav"
            for half, row in rows.items()
        }
        for half, row in rows.items():
            if (said := _said(row, path)) is not None:
                text[f"{name}-{half[:3]}"] = said
    return _join(found, text)


def _gold_rows(path: Path) -> list[dict[str, str]]:
    """Read a table of sLM21.

    Raises:
        ValueError: If columns are missing, or ``correct`` is neither 0 nor 1.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    needed = {"id", "voice", "filename", "correct"}
    if not rows or not needed <= rows[0].keys():
        raise ValueError(f"{path}: expected rows with the columns {sorted(needed)}")
    for number, row in enumerate(rows, start=2):
        if row["correct"] not in ("0", "1"):
            raise ValueError(
                f"{path}:{number}: correct is '{row['correct']}', expected 0 or 1"
            )
    return rows


def _said(row: Mapping[str, str], path: Path) -> str | None:
    """Return what is said in a row; None where the table has no column of it."""
    column = next((name for name in _TEXT_COLUMNS if name in row), None)
    if column is None:
        return None
    text = " ".join((row[column] or "").split())
    if not text:
        raise ValueError(f"{path}: '{row['filename']}' has no {column}")
    return text


def _vocabulary(row: Mapping[str, str], path: Path) -> str:
    """Return the ending of the part to which a word belongs."""
    if "frequency" not in row:
        return ""
    frequency = (row["frequency"] or "").strip().lower()
    if frequency in ("", "oov"):
        return OUT_OF_VOCABULARY
    try:
        return IN_VOCABULARY if float(frequency) > 0 else OUT_OF_VOCABULARY
    except ValueError as error:
        raise ValueError(
            f"{path}: '{row['filename']}' has frequency '{frequency}', expected a "
            "number or oov"
        ) from error


def read_list(path: Path) -> PairSet:
    """Read a table of one's own: ``pair part positive.wav negative.wav``, by tabs.

    Paths are relative to the table. A pair is named by its part, too, since parts may
    number theirs alike.

    Raises:
        ValueError: If a line has other fields, a name blanks, or a pair is there twice.
    """
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for number, fields in _lines(path):
        name, part, *files = fields
        if (part + name).split() != [part + name]:
            raise ValueError(
                f"{path}:{number}: pair '{name}' of '{part}': names become utterance "
                "ids, which have no blanks"
            )
        name = f"{part}-{name}"
        if (part, name) in found:
            raise ValueError(f"{path}:{number}: pair '{name}' is repeated")
        halves = dict(zip(("positive", "negative"), files, strict=True))
        found[part, name] = {h: path.parent / file for h, file in halves.items()}
    return _join(found)


def check_counts(found: PairSet, expected: dict[str, int]) -> None:
    """Refuse a set that is not complete.

    Raises:
        ValueError: It names every part with another number of pairs.
    """
    counts = {part: 0 for part in expected}
    for pair in found.pairs:
        counts[pair.part] = counts.get(pair.part, 0) + 1
    wrong = [
        f"{part} has {count}, expected {expected.get(part, 0)}"
        for part, count in counts.items()
        if count != expected.get(part, 0)
    ]
    if wrong:
        raise ValueError(
            "the download is not complete, or not this benchmark: " + "; ".join(wrong)
        )


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the table of pairs."""
    with atomic_write(path) as stream:
        for pair in pairs:
            stream.write("\t".join(getattr(pair, name) for name in FIELDS) + "\n")


def read_pairs(path: Path) -> list[Pair]:
    """Read the table of pairs.

    Raises:
        FileNotFoundError: If it is absent.
        ValueError: If a line has other fields, or a pair is there twice.
    """
    pairs = [Pair(*fields) for _, fields in _lines(path)]
    names = [(pair.part, pair.pair) for pair in pairs]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{path}: pair {repeated[1]} of {repeated[0]} is repeated")
    return pairs


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split("\t")
        if len(fields) != len(FIELDS) or not all(fields):
            raise ValueError(
                f"{path}:{number}: expected {len(FIELDS)} fields by tabs "
                f"({', '.join(FIELDS)}), got '{line}'"
            )
        yield number, fields


def _match(pattern: re.Pattern, path: Path, form: str) -> re.Match:
    match = pattern.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path}: expected a file called {form}")
    return match


def _join(
    found: dict[tuple[str, str], dict[str, Path]],
    text: dict[str, str] | None = None,
) -> PairSet:
    """Make utterances of the halves; both must be there."""
    pairs, audio = [], {}
    for (part, name), halves in sorted(found.items()):
        for half in ("positive", "negative"):
            path = halves.get(half)
            if path is None or not path.is_file():
                where = "is missing" if path is None else f"is not there: {path}"
                raise ValueError(f"pair {name} of {part}: its {half} half {where}")
            audio[f"{name}-{half[:3]}"] = path
        pairs.append(Pair(name, part, f"{name}-pos", f"{name}-neg"))
    return PairSet(tuple(pairs), audio, text or {})
