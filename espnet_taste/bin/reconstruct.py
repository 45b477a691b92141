#!/usr/bin/env python3
"""Reconstruct a set to audio: text and codes, to units, to a waveform.

With ``--units_only`` the true units go straight to the vocoder: the topline that no
decoder can pass. Writes audio, ``wav.scp`` and ``report.jsonl`` (units, how the
decoder stopped).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument("--features_dir", type=Path, required=True)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--model_file", type=Path, help="trained speech tokenizer")
    group.add_argument("--units_only", action="store_true", help="the topline")
    parser.add_argument("--vocoder_dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="decoding options, YAML")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(reconstruct, get_parser(), "reconstruct", argv)


def reconstruct(args: argparse.Namespace) -> None:
    """Write the audio of all batches that are not done yet."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.jobs import read_keys
    from espnet_taste.pipeline.speech import (
        DecodeOptions,
        SpeechReconstructor,
        UnitTopline,
    )

    options = DecodeOptions.read(args.config)
    keys = read_keys(args.data_dir, args.key_file)

    def open_source():
        if args.units_only:
            return UnitTopline(args.vocoder_dir, args.features_dir, args.device)
        model = SpeechReconstructor(
            args.model_file, args.vocoder_dir, options=options, device=args.device
        )
        return model.open(args.data_dir, args.features_dir)

    output = AudioOutput(args.output_dir)
    output.fill(keys, options.batch_size, open_source)


if __name__ == "__main__":
    sys.exit(main())
