#!/usr/bin/env python3
"""Convert TASTE tokens (``tokens.jsonl``) for other programs.

``kaldi``: arks of codes, times and speakers. ``speechlm``: ``data.json`` as ESPnet's
SpeechLM template reads it. ``hf``: a folder for ``datasets.load_dataset``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.jsonl")
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--to", choices=["kaldi", "speechlm", "hf"], required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--codebook_size", type=int, help="codes a codebook; needed for speechlm"
    )
    parser.add_argument("--task", default="tts", help="of ESPnet-SpeechLM")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(export, get_parser(), "export_tokens", argv)


def export(args: argparse.Namespace) -> None:
    """Write the other form."""
    from espnet_taste.data.data_dir import select_keys
    from espnet_taste.pipeline import exports
    from espnet_taste.pipeline.interchange import TokenFile

    tokens = TokenFile(args.tokens)
    keys = select_keys(tokens, args.key_file)
    if not keys:
        raise ValueError(f"{args.tokens}: no utterances")
    if args.to == "kaldi":
        exports.export_kaldi(tokens, keys, args.output_dir)
    elif args.to == "hf":
        exports.export_hf(tokens, keys, args.output_dir)
    elif args.codebook_size is None:
        raise ValueError("--to speechlm needs --codebook_size, that of the quantizer")
    else:
        exports.export_speechlm(
            tokens, keys, args.output_dir, args.codebook_size, args.task
        )


if __name__ == "__main__":
    sys.exit(main())
