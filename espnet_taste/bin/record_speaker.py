#!/usr/bin/env python3
"""Note with which speaker encoder an experiment is trained: ``config.yaml``.

The ONNX file of CAM++ is copied beside it. What opens the experiment, or its pack,
then embeds speakers as its training did.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model", required=True, help="weight name, folder or ONNX file"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(record, get_parser(), "record_speaker", argv)


def record(args: argparse.Namespace) -> None:
    """Write the record."""
    from espnet_taste.units.speakers import record_speaker_model

    print(record_speaker_model(args.model, args.output_dir))


if __name__ == "__main__":
    sys.exit(main())
