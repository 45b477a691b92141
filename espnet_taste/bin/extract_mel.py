#!/usr/bin/env python3
"""Write the vocoder's log-mel frames of a set: ``mel.scp``, (M, 80), ``mel_shape``."""

import argparse
import logging
import sys
from collections.abc import Sequence

from espnet_taste.bin.command import run_command, utterance_parser
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.audio import read_audio
from espnet_taste.data.jobs import read_keys, write_lengths
from espnet_taste.data.kaldi import read_table
from espnet_taste.types import SAMPLE_RATE_HZ


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_mel", argv)


def extract(args: argparse.Namespace) -> None:
    """Compute the frames of all utterances that are not done yet."""
    import torch

    from espnet_taste.decoder.mel import LogMel, MelConfig, resample

    log_mel = LogMel(MelConfig())
    rate_hz = log_mel.config.sample_rate_hz
    keys = read_keys(args.data_dir, args.key_file)
    wav = read_table(args.data_dir / "wav.scp", frozenset(keys))
    with ArkWriter(args.output_dir, "mel", keys=keys) as writer:
        for number, key in enumerate(keys):
            if key in writer.done:
                continue
            speech = torch.from_numpy(read_audio(wav[key], folder=args.data_dir))
            try:
                mel = log_mel(resample(speech[None], SAMPLE_RATE_HZ, rate_hz))
            except ValueError as error:
                raise ValueError(f"'{key}': {error}") from error
            writer(key, mel[0].numpy())
            if number % 100 == 0:
                logging.info(f"{number}/{len(keys)} utterances")
    write_lengths(writer.scp, args.output_dir / "mel_shape")


if __name__ == "__main__":
    sys.exit(main())
