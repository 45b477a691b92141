#!/usr/bin/env python3
"""Write a speaker embedding for every utterance: ``spembs.scp``, float32.

256 values of GE2E, or 192 of CAM++ when ``--model`` names its ONNX file.
"""

import argparse
import logging
import sys
from collections.abc import Sequence

from espnet_taste.bin.command import run_command, utterance_parser
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.audio import read_audio
from espnet_taste.data.exclusions import keep_settings
from espnet_taste.data.jobs import read_keys
from espnet_taste.data.kaldi import read_table


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument(
        "--model", default="resemblyzer/ge2e", help="weight name, folder or ONNX file"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_speakers", argv)


def extract(args: argparse.Namespace) -> None:
    """Embed all utterances that are not done yet."""
    from espnet_taste.units.speakers import open_speaker_encoder

    encoder = open_speaker_encoder(args.model)
    keys = read_keys(args.data_dir, args.key_file)
    wav = read_table(args.data_dir / "wav.scp", frozenset(keys))
    names = ("data_dir", "model")
    keep_settings(args.output_dir, {name: vars(args)[name] for name in names})
    with ArkWriter(args.output_dir, "spembs", keys=keys) as writer:
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
