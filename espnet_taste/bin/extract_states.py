#!/usr/bin/env python3
"""Compute the frozen encoder's states once, instead of in every epoch.

Writes ``encoder_states.scp``: keys and values side by side, (T, 2D) float32, at the
encoder's frame rate, trimmed to what may be attended.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.audio import read_audio
from espnet_taste.data.exclusions import keep_settings
from espnet_taste.data.jobs import read_keys
from espnet_taste.data.kaldi import read_table


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help="training YAML whose encoder and encoder_conf are used",
    )
    parser.add_argument("--whisper", default="openai/whisper-tiny.en")
    parser.add_argument("--batch_size", type=int, default=8, help="utterances")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_states", argv)


def extract(args: argparse.Namespace) -> None:
    """Encode all utterances of the set that are not done yet."""
    import torch

    from espnet_taste.data.collate import pad_arrays
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.tasks.tokenizer_builder import build_encoder

    encoder = build_encoder(args.config, args.whisper).to(args.device)
    keys = read_keys(args.data_dir, args.key_file)
    wav = read_table(args.data_dir / "wav.scp", frozenset(keys))
    settings = {"data_dir": args.data_dir, "whisper": args.whisper}
    keep_settings(args.output_dir, settings | chosen_encoder(args.config))
    with ArkWriter(args.output_dir, "encoder_states", keys=keys) as writer:
        # Of all keys, and made again whole: a row's last bits depend on its batch, and
        # a killed run must not end with others.
        for number, batch_keys in enumerate(in_batches(keys, args.batch_size)):
            if writer.done.issuperset(batch_keys):
                continue
            items = [
                (key, {"speech": read_audio(wav[key], folder=args.data_dir)})
                for key in batch_keys
            ]
            batch = pad_arrays(items)
            states = encoder(batch["speech"].to(args.device), batch["speech_lengths"])
            packed = states.pack().to("cpu", torch.float32)
            for key, row, length in zip(batch_keys, packed, states.lengths.tolist()):
                if key not in writer.done:
                    writer(key, row[:length].numpy())
            if number % 20 == 0:
                logging.info(f"{number * args.batch_size}/{len(keys)} utterances")


def chosen_encoder(config: Path) -> dict[str, object]:
    """Return what a YAML file says of the encoder, wherever it lies."""
    from espnet_taste.data.settings import read_settings

    chosen = read_settings(config)
    conf = json.dumps(chosen.get("encoder_conf"), sort_keys=True, default=str)
    return {"encoder": chosen.get("encoder"), "encoder_conf": conf}


if __name__ == "__main__":
    sys.exit(main())
