#!/usr/bin/env python3
"""Prepare a benchmark of audio pairs: data folder and table of pairs.

    --layout salmon       salmon_benchmark/, 8 parts of 200 pairs
    --layout storycloze   sSC or tSC: <number>_<id>_<correct|incorrect>.wav
    --layout multispeaker <name>_<correct|incorrect>.wav, a folder a voice
    --layout crossmodal   the same as endings to <name>_mutual.wav, with their .txt
    --layout zerospeech   sWUGGY or sBLIMP of sLM21: gold.csv beside its audio
    --layout list         a table of your own: pair, part, positive and negative file

The folder has wav.scp, utt2spk (a speaker a pair; nothing reads it) and pairs, and no
text: encode it with --transcripts asr, or put a text beside it. Layouts with texts
bring it, and --layout crossmodal what espnet_taste.bin.likelihood needs beside it:
--text_before (written beginnings), --text_after (written endings) or --moments.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    corpus_parser,
    require_folder,
    run_script,
    write_sets,
)
from espnet_taste.data.kaldi import write_table
from espnet_taste.data.pair_sets import (
    SALMON_PAIRS,
    PairSet,
    check_counts,
    read_list,
    read_salmon,
    read_storycloze,
    read_zerospeech,
    write_pairs,
)
from espnet_taste.data.stories import (
    MODALITIES,
    find_stories,
    split_stories,
    whole_stories,
)

SOURCES = {
    "salmon": ("salmon_benchmark/", "github.com/slp-rl/salmon (CC-BY-NC-4.0)"),
    "storycloze": ("a folder of .wav files", "github.com/slp-rl/SpokenStoryCloze"),
    "multispeaker": ("<name>_correct.wav, ...", "github.com/slp-rl/slamkit"),
    "crossmodal": ("<name>_mutual.wav, ...", "github.com/slp-rl/slamkit"),
    "zerospeech": ("gold.csv and its audio", "download.zerospeech.com, sLM21"),
    "list": ("the folder of the table pairs.tsv", "yourself"),
}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--layout", choices=sorted(SOURCES), required=True)
    parser.add_argument("--corpus_dir", type=Path, help="what was downloaded")
    parser.add_argument("--set", required=True, help="name of the data folder to make")
    parser.add_argument(
        "--num_pairs",
        type=int,
        help="pairs that every part must have; default: 200 for salmon, else any",
    )
    for option in ("--prompt", "--ending"):
        parser.add_argument(
            option,
            choices=MODALITIES,
            default="speech",
            help="of crossmodal stories: how it is given",
        )
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_pairs", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write the data folder and the table of pairs."""
    what, source = SOURCES[args.layout]
    folder = require_folder(args.corpus_dir, what, source)
    if args.layout in ("multispeaker", "crossmodal"):
        prepare_stories(args, folder)
        return
    found = read_layout(args.layout, folder, args.set)
    parts = dict.fromkeys(pair.part for pair in found.pairs)
    expected = args.num_pairs
    if expected is None and args.layout == "salmon":
        expected = SALMON_PAIRS
    if expected is not None:
        check_counts(found, dict.fromkeys(parts, expected))
    owner = {
        key: pair.pair for pair in found.pairs for key in (pair.positive, pair.negative)
    }
    rows = [
        Utterance(key, owner[key], str(path.resolve()), None)
        for key, path in found.audio.items()
    ]
    write_sets(args.data_root, {args.set: rows}, "pairs")
    write_pairs(args.data_root / args.set / "pairs", found.pairs)
    for part in parts:
        count = sum(pair.part == part for pair in found.pairs)
        print(f"{part}: {count} pairs")


def prepare_stories(args: argparse.Namespace, folder: Path) -> None:
    """Write stories in several voices, or across modalities."""
    stories = find_stories(folder)
    if args.num_pairs is not None and len(stories) != args.num_pairs:
        raise ValueError(
            f"{folder}: {len(stories)} stories, expected {args.num_pairs}; the "
            "download is not complete, or not this benchmark"
        )
    target = args.data_root / args.set
    if args.layout == "multispeaker":
        made = whole_stories(stories, args.set)
    else:
        modalities = (args.prompt, args.ending)
        made = split_stories(stories, args.set, *modalities, target / "audio")
    write_sets(args.data_root, {args.set: made.utterances}, "pairs")
    write_pairs(target / "pairs", made.pairs)
    for name, table in made.tables.items():
        write_table(target / name, table)
        print(f"{target / name}: for espnet_taste.bin.likelihood --{name}")


def read_layout(layout: str, folder: Path, name: str) -> PairSet:
    """Read a download.

    Args:
        layout: How it is laid out, a name in ``SOURCES``.
        folder: Where it is.
        name: Name of the set, which becomes the part where there is only one.
    """
    if layout == "salmon":
        return read_salmon(folder)
    if layout == "storycloze":
        return read_storycloze(folder, name)
    if layout == "zerospeech":
        return read_zerospeech(folder, name)
    return read_list(folder / "pairs.tsv")


if __name__ == "__main__":
    sys.exit(main())
