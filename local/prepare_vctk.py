#!/usr/bin/env python3
"""Prepare VCTK (109 readers, 48 kHz), version 0.80 or 0.92.

Sets: tr_no_dev, dev and eval1; of every reader the last 5 utterances are dev and the 5
before them eval1, as in ESPnet's recipe, which leaves out what lacks its label files.
Utterances without transcript (all of p315) get no text, so that the formatting stage
leaves them out and counts them.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    require_folder,
    run_script,
    write_sets,
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--corpus_dir", type=Path, help="VCTK-Corpus[-0.92]")
    parser.add_argument(
        "--num_held_out", type=int, default=5, help="of a reader, for dev and for eval1"
    )
    parser.add_argument(
        "--microphone", default="mic1", help="version 0.92 has mic1 and mic2"
    )
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_vctk", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write the three sets."""
    corpus_dir = require_folder(
        args.corpus_dir, "VCTK-Corpus", "datashare.ed.ac.uk (VCTK)"
    )
    if args.num_held_out < 1:
        raise ValueError(f"--num_held_out must be at least 1, got {args.num_held_out}")
    by_reader: dict[str, list[Utterance]] = defaultdict(list)
    for item in read_corpus(corpus_dir, args.microphone):
        by_reader[item.speaker].append(item)
    sets: dict[str, list[Utterance]] = {"tr_no_dev": [], "dev": [], "eval1": []}
    number = args.num_held_out
    for items in by_reader.values():
        # Held out are only utterances that can be scored.
        spoken = [item for item in items if item.text is not None]
        held_out = spoken[-2 * number :]
        sets["eval1"] += held_out[:-number]
        sets["dev"] += held_out[-number:]
        keys = {item.key for item in held_out}
        sets["tr_no_dev"] += [item for item in items if item.key not in keys]
    write_sets(args.data_root, sets, "vctk")


def read_corpus(corpus_dir: Path, microphone: str) -> Iterator[Utterance]:
    """Yield all utterances, reader by reader."""
    old, new = corpus_dir / "wav48", corpus_dir / "wav48_silence_trimmed"
    if new.is_dir():
        files = sorted(new.glob(f"*/*_{microphone}.flac"))
    else:
        files = sorted(old.glob("*/*.wav"))
    if not files:
        raise FileNotFoundError(
            f"no */*.wav in {old} and no */*_{microphone}.flac in {new}"
        )
    for audio in files:
        key = audio.stem.removesuffix(f"_{microphone}")
        reader = audio.parent.name
        transcript = corpus_dir / "txt" / reader / f"{key}.txt"
        text = transcript.read_text("utf-8") if transcript.is_file() else None
        yield Utterance(key, reader, str(audio), text)


if __name__ == "__main__":
    sys.exit(main())
