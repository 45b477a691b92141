#!/usr/bin/env python3
"""Prepare mini_an4, the seven utterances of ESPnet's own tests.

Sets: train_nodev, train_dev, test, as ESPnet's recipe makes them. The audio is plain
sphere, which libsndfile reads, so that sph2pipe is not needed. The transcripts are
upper case; they are lowered, because upper case falls apart into many tokens.
"""

import argparse
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    run_script,
    write_genders,
    write_sets,
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    root = os.environ.get("ESPNET_ROOT", ".espnet")
    parser.add_argument(
        "--archive",
        type=Path,
        default=Path(root) / "egs2/mini_an4/asr1/downloads.tar.gz",
        help="default: the one in the ESPnet tree $ESPNET_ROOT",
    )
    parser.add_argument(
        "--corpus_dir",
        type=Path,
        default=Path("downloads/an4"),
        help="unpacked archive; made if it is not there",
    )
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_mini_an4", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Unpack the archive and write the three sets."""
    if not (args.corpus_dir / "README").is_file():
        unpack(args.archive, args.corpus_dir)
    train = sorted(read_part(args.corpus_dir, "train", "an4_clstk"), key=_key)
    test = list(read_part(args.corpus_dir, "test", "an4test_clstk"))
    sets = {"train_nodev": train[1:], "train_dev": train[:1], "test": test}
    write_sets(args.data_root, sets, "mini_an4")
    # The first letter of a speaker's name is the gender: fash, mwhw.
    speakers = {item.speaker for item in train + test}
    genders = {name: name[0] for name in speakers if name[0] in "fm"}
    write_genders(args.data_root, sets, genders)


def unpack(archive: Path, corpus_dir: Path) -> None:
    """Unpack ``downloads/an4`` of the archive to ``corpus_dir``.

    Raises:
        FileNotFoundError: If there is no archive.
        ValueError: If it is not a tar file of this corpus.
    """
    if not archive.is_file():
        raise FileNotFoundError(
            f"no {archive}; set ESPNET_ROOT to an ESPnet tree or give --archive"
        )
    prefix = "downloads/an4/"
    try:
        with tarfile.open(archive) as tar:
            # README comes last: it marks a complete corpus.
            members = [m for m in tar.getmembers() if m.name.startswith(prefix)]
            members.sort(key=lambda member: member.name == prefix + "README")
            for member in members:
                member.name = member.name.removeprefix(prefix)
                tar.extract(member, corpus_dir, filter="data")
    except tarfile.TarError as error:
        raise ValueError(f"{archive}: {error}") from error
    if not (corpus_dir / "README").is_file():
        raise ValueError(f"{archive} holds no {prefix}README")


def read_part(corpus_dir: Path, part: str, folder: str) -> Iterator[Utterance]:
    """Yield the utterances of one transcription file."""
    path = corpus_dir / "etc" / f"an4_{part}.transcription"
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(?:<s> )?(.*?)(?: </s>)? \((.+)-(.+)-(.+)\)", line)
        if match is None:
            raise ValueError(f"{path}:{number}: expected 'WORDS (id)', got '{line}'")
        words, prompt, speaker, take = match.groups()
        audio = corpus_dir / "wav" / folder / speaker / f"{prompt}-{speaker}-{take}.sph"
        key = f"{speaker}-{prompt}-{take}"
        yield Utterance(key, speaker, str(audio), words.lower())


def _key(utterance: Utterance) -> str:
    return utterance.key


if __name__ == "__main__":
    sys.exit(main())
