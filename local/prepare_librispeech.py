#!/usr/bin/env python3
"""Prepare LibriSpeech, or any of its parts that are there.

Sets: train, dev, and each test part by its name with _ for - (test_clean). Speakers
are readers. The transcripts are upper case without punctuation; they are lowered,
because upper case falls apart into many tokens of Whisper and of the LLMs. Audio that
no transcript file lists gets no text, so that the formatting stage counts it.
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
    "train": ["train-clean-100", "train-clean-360", "train-other-500"],
    "dev": ["dev-clean", "dev-other"],
    "test": ["test-clean", "test-other"],
}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--corpus_dir", type=Path, help="LibriSpeech")
    for name, parts in PARTS.items():
        parser.add_argument(f"--{name}", nargs="+", default=parts, metavar="PART")
    parser.add_argument("--case", choices=["lower", "keep"], default="lower")
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_librispeech", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write train, dev and the test parts."""
    corpus_dir = require_folder(args.corpus_dir, "LibriSpeech", "openslr.org/12")
    lower = args.case == "lower"
    sets = {
        "train": read_parts(corpus_dir, args.train, lower),
        "dev": read_parts(corpus_dir, args.dev, lower),
    }
    for part in args.test:
        sets[part.replace("-", "_")] = read_parts(corpus_dir, [part], lower)
    write_sets(args.data_root, sets, "librispeech")
    write_genders(args.data_root, sets, read_reader_genders(corpus_dir))


def read_parts(
    corpus_dir: Path, parts: Sequence[str], lower: bool
) -> Iterator[Utterance]:
    """Yield the utterances of some parts, reader by reader."""
    for part in parts:
        folder = corpus_dir / part
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no {folder}; name the parts you have with --train, --dev, --test"
            )
        yield from require_some(read_chapters(folder, lower), folder)


def read_chapters(folder: Path, lower: bool) -> Iterator[Utterance]:
    """Yield the utterances of the ``<reader>/<chapter>`` of one part."""
    for chapter in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        path = chapter / f"{chapter.parent.name}-{chapter.name}.trans.txt"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; unpack {folder.name} again")
        yield from read_chapter(path, lower)


def read_chapter(path: Path, lower: bool) -> Iterator[Utterance]:
    """Yield the utterances of one ``<reader>-<chapter>.trans.txt``."""
    texts: dict[str, str | None] = {
        audio.stem: None for audio in sorted(path.parent.glob("*.flac"))
    }
    for line in path.read_text("utf-8").splitlines():
        key, _, words = line.partition(" ")
        texts[key] = words.lower() if lower else words
    for key, text in texts.items():
        yield Utterance(
            key, key.split("-")[0], str(path.with_name(f"{key}.flac")), text
        )


if __name__ == "__main__":
    sys.exit(main())
