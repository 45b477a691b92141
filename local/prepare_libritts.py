#!/usr/bin/env python3
"""Prepare LibriTTS or LibriTTS-R, or any of its parts that are there (24 kHz).

Sets: train, dev, and each test part by its name with _ for - (test_clean). Speakers
are readers; transcripts are the normalised ones, cased and punctuated.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    read_reader_genders,
    require_folder,
    require_some,
    run_script,
    write_genders,
    write_sets,
)

PARTS = {
    "train": ["train-clean-100", "train-clean-360"],
    "dev": ["dev-clean"],
    "test": ["test-clean", "test-other"],
}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--corpus_dir", type=Path, help="LibriTTS")
    for name, parts in PARTS.items():
        parser.add_argument(f"--{name}", nargs="+", default=parts, metavar="PART")
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_libritts", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write train, dev and the test parts."""
    corpus_dir = require_folder(args.corpus_dir, "LibriTTS", "openslr.org/60")
    sets = {
        "train": read_parts(corpus_dir, args.train),
        "dev": read_parts(corpus_dir, args.dev),
    }
    for part in args.test:
        sets[part.replace("-", "_")] = read_parts(corpus_dir, [part])
    write_sets(args.data_root, sets, "libritts")
    write_genders(args.data_root, sets, read_reader_genders(corpus_dir))


def read_parts(corpus_dir: Path, parts: Sequence[str]) -> Iterator[Utterance]:
    """Yield the utterances of some parts; those without transcript have no text."""
    for part in parts:
        folder = corpus_dir / part
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no {folder}; name the parts you have with --train, --dev, --test"
            )
        yield from require_some(read_part(folder), folder)


def read_part(folder: Path) -> Iterator[Utterance]:
    """Yield the utterances of one part, reader by reader."""
    for audio in sorted(folder.glob("*/*/*.wav")):
        transcript = audio.with_name(f"{audio.stem}.normalized.txt")
        text = transcript.read_text("utf-8") if transcript.is_file() else None
        yield Utterance(audio.stem, audio.parts[-3], str(audio), text)


if __name__ == "__main__":
    sys.exit(main())
