#!/usr/bin/env python3
"""Make a vocoder's folder from released weights; nothing is trained.

The YAML file chooses the vocoder (``vocoder: cosyvoice``) and names the folder of its
weights (``weights``). Weights that do not fit are refused here, not hours later; the
folder made is whole, the one named may go.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command

MODEL_FILE = "valid.loss.best.pth"  # where the other stages look for a vocoder


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file with vocoder and weights"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(install, get_parser(), "install_vocoder", argv)


def install(args: argparse.Namespace) -> None:
    """Write checkpoint, then config: with it the folder is whole.

    Raises:
        FileNotFoundError: If the weights are absent.
        ValueError: If the YAML file or the weights do not fit.
    """
    import torch

    from espnet_taste.data.kaldi import atomic_write
    from espnet_taste.data.settings import read_settings
    from espnet_taste.decoder.cosyvoice import open_cosyvoice

    config = read_settings(args.config)
    if config.get("vocoder") != "cosyvoice":
        raise ValueError(
            f"{args.config}: expected a YAML mapping with 'vocoder: cosyvoice'; other "
            "vocoders are trained"
        )
    if not config.get("weights"):
        raise ValueError(
            f"{args.config}: 'weights' must name the folder of voice_generator.pth, or "
            "of flow.pt and hift.pt"
        )
    vocoder = open_cosyvoice(args.config.parent, config, MODEL_FILE)
    with atomic_write(args.output_dir / MODEL_FILE, "wb") as stream:
        torch.save(vocoder.state_dict(), stream)
    with atomic_write(args.output_dir / "config.yaml") as stream:
        stream.write(args.config.read_text(encoding="utf-8"))
    parameters = sum(value.numel() for value in vocoder.parameters())
    logging.info(f"wrote {args.output_dir}: {parameters / 1e6:.1f} M parameters")


if __name__ == "__main__":
    sys.exit(main())
