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

from espnet_taste.data.audio import read_audio
from espnet_taste.data.jobs import read_keys
from espnet_taste.data.kaldi import (
    ArkWriter,
    read_scp_arrays,
    read_table,
    write_table,
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--units_dir", type=Path, required=True, help="folder train_units wrote"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        extract(args)
    except (OSError, ValueError) as error:
        print(f"extract_units: {error}", file=sys.stderr)
        return 1
    return 0


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
    units = read_scp_arrays(writer.scp)
    shapes = {key: str(len(units[key])) for key in units}
    write_table(args.output_dir / "units_shape", shapes)


if __name__ == "__main__":
    sys.exit(main())
