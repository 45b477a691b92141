#!/usr/bin/env python3
"""Join what parallel jobs wrote: tables, JSON lines and counts."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.data.data_dir import finish_joined
from espnet_taste.data.jobs import merge_jobs


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--parts_dir", type=Path, required=True, help="holds 1..n and num_jobs"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    try:
        merge_jobs(args.parts_dir, args.output_dir)
        finish_joined(args.output_dir)
    except (OSError, ValueError) as error:
        print(f"merge_jobs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
