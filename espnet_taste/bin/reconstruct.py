#!/usr/bin/env python3
"""Reconstruct a set to audio: text and codes, to units, to a waveform.

With ``--units_only`` the true units go straight to the vocoder: the topline that no
decoder can pass. Writes audio, ``wav.scp`` and ``report.jsonl`` (units, how the
decoder stopped).
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
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
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        reconstruct(args)
    except (OSError, ValueError) as error:
        print(f"reconstruct: {error}", file=sys.stderr)
        return 1
    return 0


def reconstruct(args: argparse.Namespace) -> None:
    """Write the audio of all utterances that have none yet."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.jobs import read_keys
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.pipeline import open_reconstruction

    keys = read_keys(args.data_dir, args.key_file)
    output = AudioOutput(args.output_dir)
    todo = [key for key in keys if key not in output.done]
    if todo:
        source, options = open_reconstruction(args)
        for batch in in_batches(todo, options.batch_size):
            for key, result in zip(batch, source(batch), strict=True):
                output.write(key, result.audio, result.sample_rate_hz, result.facts)
            logging.info(f"{len(output.done)}/{len(keys)} utterances")
    output.close(keys)


if __name__ == "__main__":
    sys.exit(main())
