#!/usr/bin/env python3
"""Write a speaker embedding for every utterance: ``spembs.scp``, (256,) float32."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.data.audio import read_audio
from espnet_taste.data.jobs import read_keys
from espnet_taste.data.kaldi import ArkWriter, read_table


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--model", default="resemblyzer/ge2e", help="weight name or folder"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        extract(args)
    except (OSError, ValueError) as error:
        print(f"extract_speakers: {error}", file=sys.stderr)
        return 1
    return 0


def extract(args: argparse.Namespace) -> None:
    """Embed all utterances that are not done yet."""
    from espnet_taste.units.speaker import SpeakerEncoder
    from espnet_taste.weights import resolve

    encoder = SpeakerEncoder.load(resolve(args.model))
    wav = read_table(args.data_dir / "wav.scp")
    keys = read_keys(args.data_dir, args.key_file)
    with ArkWriter(args.output_dir, "spembs") as writer:
        for number, key in enumerate(keys):
            if key in writer.done:
                continue
            try:
                embedding = encoder.embed(read_audio(wav[key], folder=args.data_dir))
            except ValueError as error:
                raise ValueError(f"'{key}': {error}") from error
            writer(key, embedding)
            if number % 100 == 0:
                logging.info(f"{number}/{len(keys)} utterances")


if __name__ == "__main__":
    sys.exit(main())
