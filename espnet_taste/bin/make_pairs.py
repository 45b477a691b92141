#!/usr/bin/env python3
"""Make pairs of real speech that differ in one thing, from a set at hand.

Of a folder that the stage align made; they are our own sets, no benchmark that is
published. Writes a folder like those of local/prepare_pairs.py, with text and moments:
audio, wav.scp, text, utt2spk, pairs, moments (utterance id, seconds), and report.jsonl
with what differs. A killed run goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command

if TYPE_CHECKING:
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.pair_making import Corpus, MadePair
    from espnet_taste.data.pair_sets import Pair

KINDS = (
    "speaker_switch",
    "gender_switch",
    "topic_switch",
    "prosody_switch",
    "background_switch",
    "reverb_switch",
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--num_pairs", type=int, default=100, help="of every kind")
    parser.add_argument("--spk2gender", type=Path, help="table, for gender_switch")
    parser.add_argument("--seed", type=int, default=1986)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(make, get_parser(), "make_pairs", argv)


def make(args: argparse.Namespace) -> None:
    """Make all pairs that are not there yet, then write the tables."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.exclusions import keep_settings
    from espnet_taste.data.kaldi import write_table
    from espnet_taste.data.pair_making import make_pairs
    from espnet_taste.data.pair_sets import MADE, Pair

    if args.num_pairs < 1:
        raise ValueError(f"--num_pairs must be at least 1, got {args.num_pairs}")
    corpus = open_corpus(args)
    names = ("data_dir", "key_file", "spk2gender", "seed")
    keep_settings(args.output_dir, {name: vars(args)[name] for name in names})
    output = AudioOutput(args.output_dir)
    done = output.done
    pairs: list[Pair] = []
    counts: dict[str, str] = {}
    for kind in args.kinds:
        found = make_pairs(corpus, kind, args.num_pairs, args.seed)
        count = 0
        for made in progress(found, kind, total=args.num_pairs):
            pairs.append(write_pair(output, kind, made, done))
            count += 1
        counts[kind] = f"{count} {args.num_pairs}"
        print(f"{kind}: {count} pairs" + ("" if count else "; the set has none"))
    if not pairs:
        raise ValueError(f"{args.data_dir}: no pair of {', '.join(args.kinds)}")
    write_tables(args.output_dir, output, pairs)
    write_table(args.output_dir / MADE, counts)


def open_corpus(args: argparse.Namespace) -> "Corpus":
    """Read the tables of a set.

    Raises:
        ValueError: If it lacks a table, or has no utterance that is long enough.
    """
    from espnet_taste.data.data_dir import read_data_dir, select_keys
    from espnet_taste.data.kaldi import read_scp_arrays, read_table
    from espnet_taste.data.pair_making import MIN_WORDS, Corpus, Spoken

    data = read_data_dir(args.data_dir)
    scp = args.data_dir / "word_times.scp"
    if data.text is None or data.utt2spk is None or not scp.is_file():
        raise ValueError(
            f"{args.data_dir} lacks text, utt2spk or word_times.scp; give a folder "
            "that the stage align made"
        )
    times = read_scp_arrays(scp)
    keys = select_keys(data.utterances, args.key_file)
    keys = [k for k in keys if k in times and len(data.text[k].split()) >= MIN_WORDS]
    if not keys:
        raise ValueError(f"{args.data_dir}: no utterance of {MIN_WORDS} words or more")

    def read(key: str) -> Spoken:
        return Spoken(data.read(key), tuple(data.text[key].split()), times[key])

    gender = {} if args.spk2gender is None else read_table(args.spk2gender)
    return Corpus(keys, data.utt2spk, gender, read)


def write_pair(
    output: "AudioOutput", kind: str, made: "MadePair", done: Set[str]
) -> "Pair":
    """Write both halves, but those whose keys are in ``done``."""
    from espnet_taste.data.pair_sets import Pair
    from espnet_taste.types import SAMPLE_RATE_HZ

    name = f"{kind}-{made.anchor}"
    pair = Pair(name, kind, f"{name}-pos", f"{name}-neg")
    halves = {pair.positive: made.positive, pair.negative: made.negative}
    for key, half in halves.items():
        if key in done:
            continue
        facts = {
            "text": " ".join(half.words),
            "moment_s": round(made.moment_s, 4),
            "about": made.about,
        }
        output.write(key, half.wave, SAMPLE_RATE_HZ, facts)
    return pair


def write_tables(folder: Path, output: "AudioOutput", pairs: "Iterable[Pair]") -> None:
    """Write the tables of a data folder and of its pairs."""
    from espnet_taste.data.kaldi import write_table
    from espnet_taste.data.pair_sets import write_pairs

    pairs = list(pairs)
    owner = {key: p.pair for p in pairs for key in (p.positive, p.negative)}
    output.close(owner)
    lines = (folder / "report.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    write_table(folder / "text", {key: row["text"] for key, row in rows.items()})
    write_table(folder / "utt2spk", {key: owner[key] for key in rows})
    moments = {key: f"{row['moment_s']:g}" for key, row in rows.items()}
    write_table(folder / "moments", moments)
    write_pairs(folder / "pairs", pairs)


if __name__ == "__main__":
    sys.exit(main())
