#!/usr/bin/env python3
"""Prepare LJ Speech 1.1 (one reader, 24 hours, 22.05 kHz).

Sets: tr_no_dev, dev and eval1; dev and eval1 are the last 500 utterances, as in
ESPnet's recipe. Transcripts are the normalised ones (numbers written out).
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    require_folder,
    run_script,
    write_sets,
)

NUM_HELD_OUT = 250  # utterances of dev and of eval1


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--corpus_dir", type=Path, help="LJSpeech-1.1")
    parser.add_argument("--num_held_out", type=int, default=NUM_HELD_OUT)
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_ljspeech", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write the three sets."""
    corpus_dir = require_folder(
        args.corpus_dir, "LJSpeech-1.1", "keithito.com/LJ-Speech-Dataset"
    )
    rows = sorted(read_corpus(corpus_dir), key=lambda item: item.key)
    number = args.num_held_out
    if not 0 < 2 * number < len(rows):
        raise ValueError(
            f"--num_held_out {number} twice is not below {len(rows)} utterances"
        )
    sets = {
        "tr_no_dev": rows[: -2 * number],
        "dev": rows[-2 * number : -number],
        "eval1": rows[-number:],
    }
    write_sets(args.data_root, sets, "ljspeech")


def read_corpus(corpus_dir: Path) -> Iterator[Utterance]:
    """Yield the utterances that metadata.csv lists."""
    path = corpus_dir / "metadata.csv"
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        fields = line.split("|")
        if len(fields) != 3:
            raise ValueError(
                f"{path}:{number}: expected 'id|text|normalised text', got '{line}'"
            )
        audio = corpus_dir / "wavs" / f"{fields[0]}.wav"
        yield Utterance(fields[0], "LJ", str(audio), fields[2])


if __name__ == "__main__":
    sys.exit(main())
