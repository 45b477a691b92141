"""What the scripts in ``local/`` share: utterances found on disk to data folders."""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_taste.data.data_dir import utterances_of
from espnet_taste.data.kaldi import atomic_write, read_table, write_table

TABLES = ("wav.scp", "utt2spk", "spk2utt", "text", "segments")
NOTE = ".corpus"  # in a data folder: the corpus it was made of


@dataclass(frozen=True)
class Utterance:
    """One utterance of a corpus."""

    key: str
    speaker: str | None  # None where the corpus does not tell: no utt2spk line
    # Path, ``file.ark:offset`` or ``command |``. None where the corpus has a transcript
    # without audio: the formatting stage counts it, as it does a missing transcript.
    audio: str | None
    text: str | None  # None where the corpus has no transcript: it gets no text line
    span_s: tuple[float, float] | None = None  # part of the recording, in s
    recording: str | None = None  # its name, where ``span_s`` is given


def write_data_dir(folder: Path, utterances: Iterable[Utterance]) -> int:
    """Write wav.scp, text, utt2spk, spk2utt and, where there are spans, segments.

    Args:
        folder: Folder to make.
        utterances: Either all with spans or none.

    Returns:
        Number of utterances.

    Raises:
        ValueError: If there are none, two have one id, or two recordings one name.
    """
    keys: set[str] = set()
    recordings: dict[str, str | None] = {}  # None where there is no audio
    text: dict[str, str] = {}
    speakers: dict[str, str] = {}
    segments: dict[str, str] = {}
    for item in utterances:
        if item.key in keys:
            raise ValueError(
                f"{folder}: id '{item.key}' is repeated; the second is {item.audio}"
            )
        keys.add(item.key)
        if item.speaker is not None:
            speakers[item.key] = item.speaker
        if item.text is not None:
            text[item.key] = " ".join(item.text.split())
        name = item.recording or item.key
        if recordings.setdefault(name, item.audio) != item.audio:
            raise ValueError(
                f"{folder}: recording '{name}' is {recordings[name]} and {item.audio}; "
                "give one of them another name, or make them two sets"
            )
        if item.span_s is not None:
            start, end = item.span_s
            segments[item.key] = f"{item.recording} {start!r} {end!r}"
    if not keys:
        raise ValueError(f"{folder}: no utterances found for it")
    wav = {name: audio for name, audio in recordings.items() if audio is not None}
    tables = (wav, speakers, utterances_of(speakers), text, segments)
    for name, table in zip(TABLES, tables, strict=True):
        # A table of an earlier preparation must not stay beside the others.
        (folder / name).unlink(missing_ok=True)
        if table:
            write_table(folder / name, table)
    return len(keys)


def write_sets(
    data_root: Path, sets: Mapping[str, Iterable[Utterance]], corpus: str
) -> None:
    """Write a data folder for each set and print how many utterances it has.

    Args:
        data_root: The folders are made in here.
        sets: Set name to utterances.
        corpus: Where they are from, noted beside the tables. A folder that has none or
            another note is not written over: corpora share names of sets, and what was
            made of the one would be taken for the other's.

    Raises:
        ValueError: If there is such a folder, or as ``write_data_dir``.
    """
    for name in sets:
        check_owner(data_root / name, corpus)
    for name, utterances in sets.items():
        # First: whose a folder is must be known when the tables are half written.
        with atomic_write(data_root / name / NOTE) as stream:
            stream.write(f"{corpus}\n")
        count = write_data_dir(data_root / name, utterances)
        print(f"{data_root / name}: {count} utterances")


def check_owner(folder: Path, corpus: str) -> None:
    """Refuse to write over the tables of another corpus or of a user.

    Args:
        folder: Data folder that is about to be written.
        corpus: Where its utterances are from, as for ``write_sets``.

    Raises:
        ValueError: If it has tables without a note of this corpus.
    """
    if not any((folder / name).exists() for name in TABLES):
        return
    note = folder / NOTE
    owner = note.read_text("utf-8").strip() if note.is_file() else None
    if owner != corpus:
        whose = "by hand or by an older version" if owner is None else f"of {owner}"
        raise ValueError(
            f"{folder} is there already, made {whose}; choose another folder for "
            f"{corpus}: --data_root, in the recipe --datadir, --dumpdir and --tag; or "
            "remove it, and what was made of it"
        )


def write_genders(
    data_root: Path, sets: Iterable[str], genders: Mapping[str, str]
) -> None:
    """Write ``spk2gender`` (f or m) of the sets' speakers that are known.

    Args:
        data_root: Where the sets are.
        sets: Names of sets that are written.
        genders: Speaker to gender, of any set.

    Raises:
        ValueError: If a gender is neither f nor m, in any case.
    """
    for name in sets:
        folder = data_root / name
        speakers = sorted(set(read_table(folder / "utt2spk").values()))
        known = {key: genders[key].lower() for key in speakers if key in genders}
        other = [key for key, gender in known.items() if gender not in ("f", "m")]
        if other:
            raise ValueError(
                f"{folder}: speaker '{other[0]}' has gender '{known[other[0]]}', "
                "expected f or m"
            )
        (folder / "spk2gender").unlink(missing_ok=True)
        if known:
            write_table(folder / "spk2gender", known)


def read_reader_genders(corpus_dir: Path) -> dict[str, str]:
    """Read LibriSpeech's SPEAKERS.TXT (LibriTTS': .txt): id, gender and others, by |.

    Returns:
        Reader to gender; empty without the file, which downloads of parts may lack.

    Raises:
        ValueError: If a line has other fields.
    """
    genders = {}
    for path in sorted(corpus_dir.glob("SPEAKERS.[Tt][Xx][Tt]"))[:1]:
        lines = path.read_text("utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.startswith(";"):
                continue
            fields = [field.strip() for field in line.split("|")]
            if len(fields) < 2 or fields[1] not in ("F", "M"):
                raise ValueError(f"{path}:{number}: expected 'id | F or M | ...'")
            genders[fields[0]] = fields[1]
    return genders


def split_by_hash(
    utterances: Iterable[Utterance],
    shares: Mapping[str, float],
    *,
    rest: str = "train",
    seed: int = 0,
    by: str = "utterance",
) -> dict[str, list[Utterance]]:
    """Divide utterances into sets by a hash of their ids.

    An utterance stays in its set whatever else is in the corpus: adding or removing
    data never moves a test utterance into training.

    Args:
        utterances: What to divide.
        shares: Set name to its expected share, 0..1, of the held-out sets.
        rest: Set of all others.
        seed: Another seed gives another division.
        by: ``utterance``, or ``speaker`` to keep speakers apart, where they are known.

    Returns:
        Set name to utterances, in the given order.

    Raises:
        ValueError: If the shares leave nothing for the rest.
    """
    if min(shares.values(), default=0) < 0 or sum(shares.values()) >= 1:
        raise ValueError(f"expected shares >= 0 with a sum below 1, got {dict(shares)}")
    sets: dict[str, list[Utterance]] = {
        name: [] for name in [rest, *(name for name in shares if shares[name] > 0)]
    }
    for item in utterances:
        name = item.speaker if by == "speaker" and item.speaker else item.key
        place = _unit_hash(f"{seed}:{name}")
        chosen = rest
        for name, share in shares.items():
            if place < share:
                chosen = name
                break
            place -= share
        sets[chosen].append(item)
    return sets


def _unit_hash(text: str) -> float:
    """Map a text to a number in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big") / 2**56


def require_folder(path: Path | None, what: str, source: str) -> Path:
    """Return the folder of a corpus, or say what is missing and where it is from.

    Raises:
        FileNotFoundError: If it is not given or not there.
    """
    if path is None or not path.is_dir():
        found = "is not given" if path is None else f"{path} is no folder"
        raise FileNotFoundError(f"--corpus_dir {found}; expected {what}, from {source}")
    return path


def require_some(utterances: Iterable[Utterance], folder: Path) -> Iterator[Utterance]:
    """Yield utterances; none at all is a part of the corpus that was not unpacked.

    Raises:
        FileNotFoundError: If there are none.
    """
    empty = True
    for item in utterances:
        empty = False
        yield item
    if empty:
        raise FileNotFoundError(f"no utterances in {folder}; unpack it")


def run_script(
    name: str,
    parser: argparse.ArgumentParser,
    prepare: Callable[[argparse.Namespace], None],
    argv: Iterable[str] | None,
) -> int:
    """Run a preparation script; an error of the user's becomes one line."""
    args = parser.parse_args(None if argv is None else list(argv))
    try:
        prepare(args)
    except (OSError, ValueError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def corpus_parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the option that all scripts have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data_root",
        type=Path,
        default=Path("data"),
        help="the data folders are made in here",
    )
    return parser
