#!/usr/bin/env python3
"""Encode speech to TASTE tokens and decode these to audio, in one go.

Writes audio, ``wav.scp`` and ``report.jsonl`` as ``espnet_taste.bin.decode`` does, and
the tokens in the folder ``tokens`` as ``espnet_taste.bin.encode`` does. A killed run
goes on where it was. Sets that the recipe prepared are for
``espnet_taste.bin.reconstruct``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command
from espnet_taste.bin.decode import (
    NO_VOCODER,
    add_decode_options,
    check_options,
    decode,
)
from espnet_taste.bin.encode import add_input_options, encode


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_input_options(parser)
    add_decode_options(parser)
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(reconstruct, get_parser(), "reconstruct_audio", argv)


def reconstruct(args: argparse.Namespace) -> None:
    """Encode what is not encoded yet, then decode what is not decoded yet."""
    check_decoding(args)
    folder = args.output_dir / "tokens"
    options = vars(args)
    encode(argparse.Namespace(**options | {"output_dir": folder, "word_times": False}))
    tokens = folder / "tokens.jsonl"
    # The subset was taken on encoding; what was left out then has no tokens.
    decode(argparse.Namespace(**options | {"tokens": tokens, "key_file": None}))


def check_decoding(args: argparse.Namespace) -> None:
    """Stop before hours of encoding if nothing can be decoded.

    Raises:
        ValueError: If an option makes no sense, or a released model has no vocoder.
    """
    from espnet_taste.pipeline.released import find_released, has_vocoder

    check_options(args)
    folder = find_released(args.model)
    if folder is not None and not has_vocoder(folder):
        raise ValueError(NO_VOCODER.format(args.model))


if __name__ == "__main__":
    sys.exit(main())
