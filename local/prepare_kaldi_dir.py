#!/usr/bin/env python3
"""Prepare sets from Kaldi-style folders that exist already.

--set NAME=DIR[,DIR...] joins folders to one set as they are. --split DIR... joins
folders and divides their utterances into train, valid and test by a hash of the
utterance id, so that an utterance stays in its set when data is added. Both may be
given. Paths in the folders may be relative to the folder, or to the folder of the
recipe that made them (what holds data/<set>); segments, arks, commands and missing
transcripts are carried over.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    run_script,
    split_by_hash,
    write_sets,
)
from espnet_taste.data.data_dir import DataDir, read_data_dir


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=DIR[,DIR...]")
    parser.add_argument("--split", nargs="+", type=Path, default=[], metavar="DIR")
    parser.add_argument("--valid_share", type=float, default=0.05)
    parser.add_argument("--test_share", type=float, default=0.05)
    parser.add_argument(
        "--split_by", choices=["utterance", "speaker"], default="utterance"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the division")
    parser.add_argument(
        "--default_speaker",
        help="speaker of folders without utt2spk; default: the folder's name",
    )
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_kaldi_dir", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write all sets."""
    sets: dict[str, list[Utterance]] = {}
    if args.split:
        shares = {"valid": args.valid_share, "test": args.test_share}
        rows = join_folders(args.split, args.default_speaker)
        sets = split_by_hash(rows, shares, seed=args.seed, by=args.split_by)
    for item in args.set:
        name, _, folders = item.partition("=")
        if not name or not folders:
            raise ValueError(f"--set {item}: expected NAME=DIR[,DIR...]")
        if name in sets:
            raise ValueError(f"--set {item}: there is a set '{name}' already")
        paths = [Path(folder) for folder in folders.split(",")]
        sets[name] = list(join_folders(paths, args.default_speaker))
    if not sets:
        raise ValueError("nothing to prepare; give --set NAME=DIR or --split DIR")
    write_sets(args.data_root, sets, "kaldi_dir")


def join_folders(
    folders: Iterable[Path], default_speaker: str | None
) -> Iterator[Utterance]:
    """Yield the utterances of several folders; all with segments or none."""
    folders = list(folders)
    datas = [read_data_dir(folder) for folder in folders]
    if len({data.segments is None for data in datas}) > 1:
        raise ValueError(
            "folders with and without segments cannot be joined: "
            f"{', '.join(map(str, folders))}; make them two sets, or format one first"
        )
    for data in datas:
        yield from read_folder(data, default_speaker or data.folder.resolve().name)


def read_folder(data: DataDir, default_speaker: str) -> Iterator[Utterance]:
    """Yield the utterances of one folder, those without audio or text included."""
    for key in data.utterances:
        recording, span_s = key, None
        if data.segments is not None and key in data.segments:
            recording, *span_s = data.segments[key]
        yield Utterance(
            key=key,
            # Of a table with gaps, the formatting stage counts the gaps.
            speaker=default_speaker if data.utt2spk is None else data.utt2spk.get(key),
            audio=data.place_of(recording),
            text=(data.text or {}).get(key),
            span_s=None if span_s is None else (span_s[0], span_s[1]),
            recording=recording,
        )


if __name__ == "__main__":
    sys.exit(main())
