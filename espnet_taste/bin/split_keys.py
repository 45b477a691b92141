#!/usr/bin/env python3
"""Split the utterances of a data folder into key files, one a job."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.data.jobs import read_keys, split_keys, utterance_ids


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--num_jobs", type=int, required=True)
    parser.add_argument(
        "--least",
        type=int,
        default=1,
        help="utterances of a job; fewer jobs if need be",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    try:
        if args.key_file is None:
            keys = utterance_ids(args.data_dir)
        else:
            keys = read_keys(args.data_dir, args.key_file)
        if not keys:
            raise ValueError(f"no utterances in {args.key_file or args.data_dir}")
        most = max(len(keys) // max(args.least, 1), 1)
        split_keys(keys, min(args.num_jobs, most), args.output_dir)
    except (OSError, ValueError) as error:
        print(f"split_keys: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
