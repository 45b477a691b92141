#!/usr/bin/env python3
"""Prepare one language of Emilia (mp3, transcripts made by a recogniser).

Reads either form in which it is published: unpacked folders of <id>.mp3 with
<id>.json, or <shard>.jsonl beside the folders its "wav" fields name. Emilia-YODAS, too.
Sets: train, valid and test, divided by a hash of the utterance id. An mp3 that nothing
describes gets no text, so that the formatting stage leaves it out and counts it.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    require_folder,
    run_script,
    split_by_hash,
    write_sets,
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--corpus_dir", type=Path, help="one language, e.g. Emilia/EN")
    parser.add_argument("--valid_share", type=float, default=0.001)
    parser.add_argument("--test_share", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0, help="of the division")
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_emilia", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write the three sets."""
    corpus_dir = require_folder(
        args.corpus_dir, "one language of Emilia", "huggingface.co/datasets/amphion"
    )
    shares = {"valid": args.valid_share, "test": args.test_share}
    rows = read_corpus(corpus_dir)
    write_sets(args.data_root, split_by_hash(rows, shares, seed=args.seed), "emilia")


def read_corpus(corpus_dir: Path) -> Iterator[Utterance]:
    """Yield the utterances of all description files, then audio without one."""
    listed = sorted(corpus_dir.rglob("*.jsonl"))
    single = sorted(corpus_dir.rglob("*.json"))
    if not listed and not single:
        packed = any(corpus_dir.rglob("*.tar"))
        remedy = "; unpack its tar files first" if packed else ""
        raise FileNotFoundError(f"no *.json or *.jsonl in {corpus_dir}{remedy}")
    described = set()
    for item in read_descriptions(listed, single):
        described.add(Path(item.audio).stem)
        yield item
    for audio in sorted(corpus_dir.rglob("*.mp3")):
        if audio.stem not in described:
            yield Utterance(audio.stem, None, str(audio), None)


def read_descriptions(
    listed: Iterable[Path], single: Iterable[Path]
) -> Iterator[Utterance]:
    """Yield the utterances of files of many lines and of files of one utterance."""
    for path in listed:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                yield read_row(line, f"{path}:{number}", path.parent, None)
    for path in single:
        yield read_row(path.read_text("utf-8"), str(path), path.parent, path)


def read_row(line: str, place: str, folder: Path, beside: Path | None) -> Utterance:
    """Read the description of one utterance.

    Args:
        line: JSON with id (of Emilia-YODAS: _id), text, speaker and, if listed, wav.
        place: File and line, for messages.
        folder: Folder that ``wav`` starts from.
        beside: Description file of this utterance alone; its mp3 has its name.
    """
    try:
        row = json.loads(line)
        audio = beside.with_suffix(".mp3") if beside else folder / row["wav"]
        key = row["_id"] if "_id" in row else row["id"]
        return Utterance(key, row["speaker"], str(audio), row.get("text"))
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{place}: expected JSON with id, text, speaker and wav: {error!r}"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
