#!/usr/bin/env python3
"""Write the speech units of a set: ``units.scp`` (float32 vectors) and ``units_shape``.

Float32, because ESPnet reads integer vectors sixty times slower; units are exact
in it.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser
from espnet_taste.data.audio import read_audio
from espnet_taste.data.jobs import read_keys, write_lengths
from espnet_taste.data.kaldi import ArkWriter, read_table


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument(
        "--units_dir", type=Path, required=True, help="folder of the stage train_units"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_units", argv)


def extract(args: argparse.Namespace) -> None:
    """Extract the units of all utterances that are not done yet."""
    import numpy as np

    from espnet_taste.units.build import load_units

    extractor = load_units(args.units_dir)
    wav = read_table(args.data_dir / "wav.scp")
    keys = read_keys(args.data_dir, args.key_file)
    with ArkWriter(args.output_dir, "units") as writer:
        for number, key in enumerate(keys):
            if key in writer.done:
                continue
            speech = read_audio(wav[key], folder=args.data_dir)
            try:
                (units,) = extractor.extract([speech])
            except ValueError as error:
                raise ValueError(f"'{key}': {error}") from error
            writer(key, units.astype(np.float32))
            if number % 100 == 0:
                logging.info(f"{number}/{len(keys)} utterances")
    write_lengths(writer.scp, args.output_dir / "units_shape")


if __name__ == "__main__":
    sys.exit(main())
