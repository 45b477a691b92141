#!/usr/bin/env python3
"""Convert a released TASTE checkpoint to our layout, or back.

    --to espnet_taste --source Llama-1B-TASTE-V0 --target model
    --to official --source model --target Llama-1B-TASTE-V0

says what became of every tensor, also in TARGET/conversion.json. Flow and HiFT of the
vocoder are taken along if they lie in the source, or by --voice_generator.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command

GIGABYTE = 10**9


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", choices=("espnet_taste", "official"), required=True)
    parser.add_argument(
        "--source",
        type=Path,
        help="folder of the checkpoint; left out, only --voice_generator is converted",
    )
    parser.add_argument("--target", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--voice_generator",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="voice_generator.pth, or flow.pt and hift.pt of CosyVoice-300M",
    )
    parser.add_argument(
        "--whisper_config",
        type=Path,
        help="config.json of the Whisper that the tokenizer was cut from, which the "
        "checkpoint does not say; default: distil-large-v3, as released",
    )
    parser.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="FILE=DIGEST",
        help="what a file of the source must have; may be repeated",
    )
    parser.add_argument(
        "--max_shard_gb",
        type=float,
        default=5.0,
        help="divide an official checkpoint into files of at most so many 10^9 bytes",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert_folder, get_parser(), "convert", argv)


def convert_folder(args: argparse.Namespace) -> None:
    """Convert, and print the report.

    Raises:
        ValueError: If an option makes no sense or something is wrong with the
            checkpoint.
    """
    from espnet_taste.convert.architecture import Backbone, read_whisper_config
    from espnet_taste.convert.checkpoint import Options, convert

    backbone = Backbone()
    if args.whisper_config is not None:
        backbone = Backbone(read_whisper_config(args.whisper_config))
    options = Options(
        backbone,
        voice_generator=args.voice_generator,
        digests=read_digests(args.sha256),
        max_shard_bytes=round(args.max_shard_gb * GIGABYTE),
    )
    report = convert(args.source, args.target, to=args.to, options=options)
    print("\n".join(report.lines()))


def read_digests(texts: Sequence[str]) -> dict[str, str]:
    """Read ``FILE=DIGEST``.

    Raises:
        ValueError: If a text is something else.
    """
    digests = {}
    for text in texts:
        name, _, digest = text.rpartition("=")
        if not name or len(digest) != 64:
            raise ValueError(f"--sha256 {text}: give FILE=DIGEST with 64 hex digits")
        digests[name] = digest
    return digests


if __name__ == "__main__":
    sys.exit(main())
