#!/usr/bin/env python3
"""Write the adapted text LLM of a spoken LM for use without this package.

``adapters``: a folder that plain peft loads on the LLM. ``merged``: the LLM with the
adapters added to its weights, a plain Hugging Face model with its tokenizer.
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
        "--model", required=True, help="experiment folder, packed zip or model tag"
    )
    parser.add_argument("--llm", help="of a released checkpoint: the LLM it adapts")
    parser.add_argument("--kind", choices=["adapters", "merged"], required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of a merged model; default: that of the training",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(export, get_parser(), "export_lm", argv)


def export(args: argparse.Namespace) -> None:
    """Write the folder; it appears under its name only when complete."""
    from espnet_taste.pipeline.lm_export import write_adapters, write_merged
    from espnet_taste.pipeline.spoken_lm import open_inference

    if args.kind == "adapters" and args.dtype is not None:
        raise ValueError("--dtype is for --kind merged; adapters stay as trained")
    model = open_inference(args.model, llm=args.llm)
    if args.kind == "adapters":
        write_adapters(model, args.output_dir)
    else:
        write_merged(model, args.output_dir, args.dtype)
    print(args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
