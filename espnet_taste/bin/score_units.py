#!/usr/bin/env python3
"""Score the true units of a set under a trained decoder, teacher forced.

Writes ``unit_scores.jsonl``: per utterance and condition the summed loss, top-1 and
top-5 hits and the count. In the exchanged conditions the decoder reads the text, the
codes or both of the next utterance of the set that says something else, repeated to the
length of its own: what the loss rises by is how much the decoder relies on them.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument("--features_dir", type=Path, required=True)
    parser.add_argument("--model_file", type=Path, required=True)
    parser.add_argument("--batch_size", type=int, default=8, help="utterances")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_units", argv)


def score(args: argparse.Namespace) -> None:
    """Write the scores of all utterances of the job."""
    from espnet_taste.data.jobs import next_utterances, read_keys
    from espnet_taste.data.kaldi import atomic_write
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.pipeline.tokenizer import TokenizerInference

    partner = next_utterances(args.data_dir)
    model = TokenizerInference(args.model_file, device=args.device)
    utterances = model.open(args.data_dir, args.features_dir)
    keys = read_keys(args.data_dir, args.key_file)
    with atomic_write(args.output_dir / "unit_scores.jsonl") as stream:
        for number, batch in enumerate(in_batches(keys, args.batch_size)):
            own = [(key, utterances[key]) for key in batch]
            others = [(partner[key], utterances[partner[key]]) for key in batch]
            for condition, rows in model.unit_counts(own, others).items():
                for key, row in zip(batch, rows, strict=True):
                    line = {"key": key, "condition": condition, **row}
                    stream.write(json.dumps(line) + "\n")
            if number % 20 == 0:
                logging.info(f"{number * args.batch_size}/{len(keys)} utterances")


if __name__ == "__main__":
    sys.exit(main())
