#!/usr/bin/env python3
"""Learn the speech units of a corpus; writes a folder that extract_units reads."""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML with units and units_conf"
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="training set")
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        learn(args)
    except (OSError, ValueError) as error:
        print(f"train_units: {error}", file=sys.stderr)
        return 1
    return 0


def learn(args: argparse.Namespace) -> None:
    """Learn the units from utterances in a random but reproducible order."""
    from espnet_taste.data.settings import read_settings
    from espnet_taste.units.build import learn_units

    config = read_settings(args.config)
    if not config:
        raise ValueError(f"{args.config} is empty; expected units and units_conf")
    extractor = learn_units(config, read_shuffled(args.data_dir))
    extractor.save(args.output_dir)
    facts = {"num_units": extractor.num_units, "rate_hz": extractor.unit_rate_hz}
    logging.info(f"wrote {args.output_dir}: {json.dumps(facts)}")


def read_shuffled(data_dir: Path) -> Iterator:
    """Yield the waveforms of a set in a fixed random order."""
    import random

    from espnet_taste.data.audio import read_audio
    from espnet_taste.data.kaldi import read_table

    wav = read_table(data_dir / "wav.scp")
    keys = sorted(wav)
    random.Random(0).shuffle(keys)
    for number, key in enumerate(keys):
        if number % 100 == 0:
            logging.info(f"{number}/{len(keys)} utterances read")
        yield read_audio(wav[key], folder=data_dir)


if __name__ == "__main__":
    sys.exit(main())
