#!/usr/bin/env python3
"""Score the utterances of a set under a trained spoken LM, teacher forced.

Writes ``slm_scores.jsonl``: per utterance the summed text loss with its own codes, by
the text LLM alone, and with the next utterance's codes, and the losses and hits of the
codes.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import parse_bool, run_command, utterance_parser


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument("--codes_dir", type=Path, required=True)
    parser.add_argument("--slm_file", type=Path, required=True)
    parser.add_argument(
        "--train_codes_scp",
        type=Path,
        help="codes of the training set, whose mean a predicted latent must beat",
    )
    parser.add_argument(
        "--untrained",
        type=parse_bool,
        default=False,
        help="score what that training started from instead: fresh adapters and head",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="utterances")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_slm", argv)


def score(args: argparse.Namespace) -> None:
    """Write the scores of all utterances of the job."""
    from espnet_taste.data.jobs import next_utterances, read_keys
    from espnet_taste.data.kaldi import atomic_write, read_scp_arrays
    from espnet_taste.data.utterances import in_batches

    partner = next_utterances(args.data_dir)
    model = open_model(args)
    utterances = model.open(args.data_dir, args.codes_dir)
    keys = read_keys(args.data_dir, args.key_file)
    mean_latent = None
    if args.train_codes_scp is not None:
        mean_latent = model.mean_latent(read_scp_arrays(args.train_codes_scp))
    with atomic_write(args.output_dir / "slm_scores.jsonl") as stream:
        for number, batch in enumerate(in_batches(keys, args.batch_size)):
            own = [(key, utterances[key]) for key in batch]
            others = [(partner[key], utterances[partner[key]]) for key in batch]
            for row in model.scores(own, others, mean_latent):
                stream.write(json.dumps(row) + "\n")
            if number % 20 == 0:
                logging.info(f"{number * args.batch_size}/{len(keys)} utterances")


def open_model(args: argparse.Namespace):
    """Return the trained spoken LM, or the one before its first step."""
    from espnet_taste.pipeline.slm import SpokenLMInference

    if not args.untrained:
        return SpokenLMInference(args.slm_file, device=args.device)
    import torch

    from espnet_taste.tasks.building import read_config

    config = args.slm_file.parent / "config.yaml"
    torch.manual_seed(read_config(config).seed)  # as the training did
    return SpokenLMInference(None, config, device=args.device)


if __name__ == "__main__":
    sys.exit(main())
