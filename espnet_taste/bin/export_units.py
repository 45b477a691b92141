#!/usr/bin/env python3
"""Part trained units from their decoder: the units folder, and a start for the vocoder.

The decoder's checkpoint is written first: a folder with config.json is complete.
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
        "--model_file", type=Path, required=True, help="checkpoint of units_train"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--vocoder_start", type=Path, required=True, help="checkpoint to write"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(export, get_parser(), "export_units", argv)


def export(args: argparse.Namespace) -> None:
    """Write both halves."""
    import torch

    from espnet_taste.data.kaldi import atomic_write
    from espnet_taste.tasks.unit_autoencoder import UnitAutoencoderTask
    from espnet_taste.units.whisper_vq import WhisperVQ, WhisperVQConfig

    model, train_args = UnitAutoencoderTask.build_model_from_file(
        model_file=args.model_file
    )
    unit_to_mel = model.unit_to_mel
    unit_to_mel.embed.weight.copy_(model.unit_encoder.unit_embedding())
    state = {f"unit_to_mel.{n}": t for n, t in unit_to_mel.state_dict().items()}
    args.vocoder_start.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.vocoder_start, "wb") as stream:
        torch.save(state, stream)
    config = WhisperVQConfig(
        train_args.whisper, train_args.encoder_conf, train_args.unit_encoder_conf
    )
    WhisperVQ.build(config, model.unit_encoder.state_dict()).save(args.output_dir)


if __name__ == "__main__":
    sys.exit(main())
