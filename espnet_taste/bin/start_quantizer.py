#!/usr/bin/env python3
"""Start the residual quantizer from training data, before its first training step.

Takes the model of the no-quantizer stage, sets the projections to the main directions
of its features (not with `start_projections: random`) and the codebooks to their
k-means centres, and writes a checkpoint from which the quantizer stage trains. (The
reference starts its codebooks from any first batch, a validation batch included: C17.)
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command

if TYPE_CHECKING:
    from torch import Tensor

    from espnet_taste.pipeline.tokenizer import TokenizerInference


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML of the quantizer stage"
    )
    parser.add_argument(
        "--model_file", type=Path, required=True, help="model without quantizer"
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="training set")
    parser.add_argument("--features_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="checkpoint")
    parser.add_argument(
        "--max_words", type=int, default=200000, help="features to start from"
    )
    parser.add_argument("--num_iterations", type=int, default=100)
    parser.add_argument("--batch_size", type=int, default=16, help="utterances")
    parser.add_argument("--seed", type=int, default=1986)
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(start_quantizer, get_parser(), "start_quantizer", argv)


def start_quantizer(args: argparse.Namespace) -> None:
    """Write the checkpoint."""
    import torch

    from espnet_taste.pipeline.tokenizer import TokenizerInference
    from espnet_taste.tasks.checkpointing import atomic_torch_save, load_weights
    from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder

    before = TokenizerInference(args.model_file, device=args.device)
    features = collect_features(before, args)
    model = TokenizerBuilder.build_model(next_training(args.config, before.args))
    load_weights(model, args.model_file, allow_new=("quantizer",))
    logging.info(f"k-means on {len(features)} words")
    model.quantizer.initialise(
        features,
        generator=torch.Generator().manual_seed(args.seed),
        num_iterations=args.num_iterations,
    )
    model.num_steps.zero_()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_torch_save():
        torch.save(model.state_dict(), args.output)


def next_training(config: Path, before: argparse.Namespace) -> argparse.Namespace:
    """Return the arguments of a training that goes on with other parts.

    The task's parser would tell them too, but it imports half of ESPnet.

    Args:
        config: YAML of the training to come.
        before: Arguments of the one before, for what the YAML does not choose.
    """
    from espnet_taste.tasks.building import read_config
    from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder

    wanted = vars(read_config(config))
    args = vars(before) | {"init_from": None, "model_conf": {}}
    for choices in TokenizerBuilder.class_choices_list:
        args |= {choices.name: choices.default, f"{choices.name}_conf": {}}
    args |= {key: value for key, value in wanted.items() if key in args}
    num_units = {"num_units": before.decoder_conf["num_units"]}
    return argparse.Namespace(
        **args | {"decoder_conf": args["decoder_conf"] | num_units}
    )


def collect_features(
    before: "TokenizerInference", args: argparse.Namespace
) -> "Tensor":
    """Return one feature a word of a random part of the training set, (N, D)."""
    import numpy as np
    import torch

    from espnet_taste.data.jobs import read_keys
    from espnet_taste.data.utterances import in_batches

    keys = read_keys(args.data_dir, None)
    np.random.default_rng(args.seed).shuffle(keys)
    utterances = before.open(args.data_dir, args.features_dir)
    rows, count = [], 0
    for batch_keys in in_batches(keys, args.batch_size):
        features = before.word_features([(k, utterances[k]) for k in batch_keys])
        rows += [row.cpu() for row in features]  # where the model is built
        count += sum(map(len, features))
        if count >= args.max_words:
            break
    return torch.cat(rows)


if __name__ == "__main__":
    sys.exit(main())
