#!/usr/bin/env python3
"""Check that training files of the tokenizer fit a Whisper, before anything is trained.

Names every option of the files that follows the Whisper's size or tokens and does not.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whisper", required=True, help="name or folder")
    parser.add_argument(
        "--config", type=Path, nargs="+", required=True, help="training YAML files"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(check_whisper, get_parser(), "check_whisper", argv)


def check_whisper(args: argparse.Namespace) -> None:
    """Refuse files that do not fit.

    Raises:
        ValueError: With one line an option.
    """
    from espnet_taste.tasks.whisper_fit import find_misfits

    lines = [line for path in args.config for line in find_misfits(path, args.whisper)]
    if lines:
        raise ValueError(
            "\n".join([f"these options do not fit {args.whisper}:", *lines])
        )


if __name__ == "__main__":
    sys.exit(main())
