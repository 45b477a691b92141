#!/usr/bin/env python3
"""Prepare a benchmark of audio pairs: data folder and table of pairs.

    --layout salmon       salmon_benchmark/, 8 parts of 200 pairs
    --layout storycloze   sSC or tSC: <number>_<id>_<correct|incorrect>.wav
    --layout multispeaker <name>_<correct|incorrect>.wav, a folder a voice
    --layout crossmodal   the same as endings to <name>_mutual.wav, with their .txt
    --layout zerospeech   sWUGGY or sBLIMP of sLM21: gold.csv beside its audio
    --layout list         a table of your own: pair, part, positive and negative file

salmon and multispeaker may also be the .parquet files of huggingface.co/datasets/slprl
(SALMon, multispeaker-storycloze); their audio is unpacked into the data folder.

The folder has wav.scp, utt2spk (a speaker a pair; nothing reads it) and pairs. Stories
with .txt and sLM21's tables bring a text; where there is none, encode with
--transcripts asr, or put one beside it. --layout crossmodal brings what
espnet_taste.bin.likelihood needs: --text_before (written beginnings), --text_after
(written endings) or --moments. So does --layout salmon: where its parts on consistency
switch, half-way through a recording, and a dash for its parts on alignment.
"""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import soundfile

from espnet_taste.data.corpora import (
    NOTE,
    Utterance,
    check_owner,
    corpus_parser,
    require_folder,
    run_script,
    write_sets,
)
from espnet_taste.data.hub_tables import (
    has_tables,
    unpack_salmon,
    unpack_stories,
)
from espnet_taste.data.kaldi import atomic_write, write_table
from espnet_taste.data.pair_sets import (
    NO_MOMENT,
    SALMON_PAIRS,
    SALMON_PARTS,
    Pair,
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
    "salmon": (
        "salmon_benchmark/ or its .parquet files",
        "github.com/slp-rl/salmon or huggingface.co/datasets/slprl/SALMon "
        "(CC-BY-NC-4.0)",
    ),
    "storycloze": ("a folder of .wav files", "github.com/slp-rl/SpokenStoryCloze"),
    "multispeaker": (
        "<name>_correct.wav, ... or its .parquet files",
        "huggingface.co/datasets/slprl/multispeaker-storycloze",
    ),
    "crossmodal": ("<name>_mutual.wav, ...", "github.com/slp-rl/slamkit"),
    "zerospeech": ("gold.csv and its audio", "download.zerospeech.com, sLM21"),
    "list": ("the folder of the table pairs.tsv", "yourself"),
}
CORPUS = "pairs"  # whose the data folders are
# Layouts of which a folder may be one of two tests. Their names are those of the parts,
# by which published values are found, so no other layout may take them.
TESTS = {"storycloze": ("sSC", "tSC"), "zerospeech": ("sWUGGY", "sBLIMP")}
# What crossmodal stories have beside their pairs, for espnet_taste.bin.likelihood.
AROUND = ("moments", "text_before", "text_after")


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--layout", choices=sorted(SOURCES), required=True)
    parser.add_argument("--corpus_dir", type=Path, help="what was downloaded")
    parser.add_argument("--set", required=True, help="name of the data folder to make")
    parser.add_argument(
        "--test",
        choices=[name for names in TESTS.values() for name in names],
        help="which one storycloze or zerospeech is; default: the name of --set",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=SALMON_PARTS,
        default=SALMON_PARTS,
        metavar="PART",
        help="of salmon; default: all 8",
    )
    parser.add_argument(
        "--num_pairs",
        type=int,
        help="pairs that there must be, of salmon and list in every part; default: 200 "
        "for salmon, else any number, which is told",
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
    part = name_part(args)
    folder = unpack(args, folder)
    if args.layout in ("multispeaker", "crossmodal"):
        prepare_stories(args, folder, part)
        return
    found = read_layout(args, folder, part)
    check_size(args, found)
    owner = {
        key: pair.pair for pair in found.pairs for key in (pair.positive, pair.negative)
    }
    rows = [
        Utterance(key, owner[key], str(path.resolve()), found.text.get(key))
        for key, path in found.audio.items()
    ]
    write_folder(args, rows, found.pairs)
    if args.layout == "salmon":
        table = args.data_root / args.set / "moments"
        write_table(table, switch_moments(found))
        print(f"{table}: for espnet_taste.bin.likelihood --moments")


def switch_moments(found: PairSet) -> dict[str, str]:
    """Return when SALMon's halves switch, in s; a dash where nothing does.

    A sound that cannot be read has a dash as well: it is left out on encoding.
    """
    moments = dict.fromkeys(found.audio, NO_MOMENT)
    for pair in found.pairs:
        if pair.part.endswith("_consistency"):
            for key in (pair.positive, pair.negative):
                with contextlib.suppress(soundfile.LibsndfileError):
                    moments[key] = (
                        f"{soundfile.info(found.audio[key]).duration / 2:.3f}"
                    )
    return moments


def unpack(args: argparse.Namespace, folder: Path) -> Path:
    """Return where the files of a download are; .parquet files are unpacked first."""
    if args.layout not in ("salmon", "multispeaker") or not has_tables(folder):
        return folder
    target = own_folder(args)
    print(f"{folder}: unpacking .parquet files into {target / 'audio'}")
    if args.layout == "salmon":
        unpack_salmon(folder, target / "audio", args.parts)
    else:
        unpack_stories(folder, target / "audio")
    return target / "audio"


def own_folder(args: argparse.Namespace) -> Path:
    """Return the data folder into which audio is about to be written.

    Raises:
        ValueError: If there is audio, or a table, that this preparation did not make.
    """
    target = args.data_root / args.set
    check_owner(target, CORPUS)
    if (target / "audio").exists() and not (target / NOTE).is_file():
        raise ValueError(
            f"{target / 'audio'} is there already, made by hand or by an older "
            "version; move it away or choose another --set"
        )
    with atomic_write(target / NOTE) as stream:  # of whom it is, before there is audio
        stream.write(f"{CORPUS}\n")
    return target


def name_part(args: argparse.Namespace) -> str:
    """Return the name of the part that a folder is.

    Raises:
        ValueError: If it is not said which test it is, or it takes another's name.
    """
    name = args.test or args.set
    wanted = TESTS.get(args.layout)
    if wanted and name not in wanted:
        raise ValueError(
            f"--layout {args.layout}: --test {' or '.join(wanted)} must say which it is"
        )
    if not wanted and name in {test for names in TESTS.values() for test in names}:
        raise ValueError(
            f"--layout {args.layout} is not {name}; give --set another name"
        )
    return name


def check_size(args: argparse.Namespace, found: PairSet) -> None:
    """Compare the number of pairs with what is known of it, and tell it.

    Raises:
        ValueError: If it is another.
    """
    counts = Counter(pair.part for pair in found.pairs)
    expected = args.num_pairs
    if expected is None and args.layout == "salmon":
        expected = SALMON_PAIRS
    if args.layout in TESTS:
        check_total(expected, len(found.pairs), args.corpus_dir, "pairs")
    elif expected is not None:
        check_counts(found, dict.fromkeys(counts, expected))
    for part, count in counts.items():
        print(f"{part}: {count} pairs")
    tell_unchecked(expected)


def check_total(expected: int | None, count: int, folder: Path, what: str) -> None:
    """Refuse another number of pairs or stories than expected."""
    if expected is not None and count != expected:
        raise ValueError(
            f"{folder}: {count} {what}, expected {expected}; the download is not "
            "complete, or not this benchmark"
        )


def tell_unchecked(expected: int | None) -> None:
    """Say that nobody knows whether pairs are missing."""
    if expected is None:
        print("how many there must be is not known here: --num_pairs checks it")


def write_folder(
    args: argparse.Namespace, rows: Iterable[Utterance], pairs: Iterable[Pair]
) -> None:
    """Write the data folder and the table of pairs, of this preparation alone."""
    write_sets(args.data_root, {args.set: rows}, CORPUS)
    folder = args.data_root / args.set
    for name in AROUND:  # whoever finds one of an earlier preparation would use it
        (folder / name).unlink(missing_ok=True)
    write_pairs(folder / "pairs", pairs)


def prepare_stories(args: argparse.Namespace, folder: Path, part: str) -> None:
    """Write stories in several voices, or across modalities."""
    stories = find_stories(folder)
    check_total(args.num_pairs, len(stories), folder, "stories")
    target = args.data_root / args.set
    if args.layout == "multispeaker":
        made = whole_stories(stories, part)
    else:
        modalities = (args.prompt, args.ending)
        if modalities == ("speech", "speech"):
            own_folder(args)
        made = split_stories(stories, part, *modalities, target / "audio")
    write_folder(args, made.utterances, made.pairs)
    for name, table in made.tables.items():
        write_table(target / name, table)
        print(f"{target / name}: for espnet_taste.bin.likelihood --{name}")
    print(f"{part}: {len(made.pairs)} pairs")
    tell_unchecked(args.num_pairs)


def read_layout(args: argparse.Namespace, folder: Path, part: str) -> PairSet:
    """Read a download.

    Args:
        args: All options; the layout is a name in ``SOURCES``.
        folder: Where it is.
        part: Name of the part where there is only one.
    """
    if args.layout == "salmon":
        return read_salmon(folder, args.parts)
    if args.layout == "storycloze":
        return read_storycloze(folder, part)
    if args.layout == "zerospeech":
        return read_zerospeech(folder, part)
    return read_list(folder / "pairs.tsv")


if __name__ == "__main__":
    sys.exit(main())
