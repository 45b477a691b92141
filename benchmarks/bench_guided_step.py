#!/usr/bin/env python3
"""Time a training step of the guided aggregator: our kernels against the defaults.

Both variants see the same batches in turns: an aggregator of Whisper tiny.en's size
with random weights, in bfloat16 autocast, rows of tokens that listen to frames, the
guide's loss and that of the features, forward and backward. The plain variant computes
the guide by ``logsumexp`` and lets ``scaled_dot_product_attention`` choose its kernel.

    python benchmarks/bench_guided_step.py --threads 1
"""

import argparse
import os
import statistics
from contextlib import AbstractContextManager, nullcontext
from unittest import mock

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch  # noqa: E402
from timing import add_machine_options, describe, make_clock  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import WhisperConfig  # noqa: E402

from espnet_taste.layers import attention_guide  # noqa: E402
from espnet_taste.layers.precision import autocast  # noqa: E402
from espnet_taste.tokenizer import aggregator as aggregator_module  # noqa: E402
from espnet_taste.tokenizer.aggregator import (  # noqa: E402
    WhisperAggregator,
    build_decoder,
)
from espnet_taste.tokenizer.states import EncoderStates  # noqa: E402

TINY_EN = {
    "vocab_size": 51864,
    "d_model": 384,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
}
# Rows, tokens and frames of batches that the recipe makes of read speech.
SHAPES = ((19, 18, 242), (6, 60, 752), (48, 9, 112))
TOKENS_A_WORD = 2


class PlainMissedAttention:
    """The loss as its definition reads."""

    @staticmethod
    def apply(scores: Tensor, target: Tensor, shares: Tensor) -> Tensor:
        """Return the loss of every query; see ``MissedAttention``."""
        aimed = scores.masked_fill(~target, torch.finfo(torch.float32).min)
        missed = scores.logsumexp(-1) - aimed.logsumexp(-1)
        return torch.where(target.any(-1), missed, 0.0)


def plain_kernel(device: torch.device) -> AbstractContextManager:
    """Leave the choice to PyTorch."""
    return nullcontext()


def make_batch(rows: int, tokens: int, frames: int) -> dict[str, Tensor]:
    """Return random tokens and states, words one after the other in equal times."""
    states = torch.randn(rows, frames, 2 * TINY_EN["d_model"])
    words = torch.arange(tokens) // TOKENS_A_WORD
    length = frames / 50 / (int(words[-1]) + 1)
    times = torch.stack([words * length, (words + 1) * length], dim=-1)
    return {
        "tokens": torch.randint(1000, (rows, tokens)),
        "lengths": torch.full((rows,), tokens),
        "words": words.expand(rows, -1),
        "times": times.expand(rows, -1, -1),
        "states": states,
    }


def step(aggregator: WhisperAggregator, batch: dict[str, Tensor]) -> float:
    """Run forward and backward; return the guide's loss."""
    keys, values = batch["states"].chunk(2, dim=-1)
    frames = torch.full((len(keys),), keys.size(1))
    states = EncoderStates(keys, values, frames)
    with autocast("cpu", torch.bfloat16):
        guide = aggregator.guide(batch["times"], states)
        features = aggregator(
            batch["tokens"], batch["lengths"], batch["words"], states, guide
        )
    loss = guide.loss() + features.float().square().mean()
    loss.backward()
    aggregator.zero_grad(set_to_none=True)
    return float(guide.loss().detach())


def main() -> None:
    """Time both variants in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_machine_options(parser, device=False)
    parser.add_argument("--rounds", type=int, default=5, help="steps of every shape")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = make_clock(args)
    torch.manual_seed(0)
    decoder = build_decoder(WhisperConfig(**TINY_EN))
    aggregator = WhisperAggregator.from_module(decoder, [1, 2], freeze_embeddings=True)
    batches = [make_batch(*shape) for shape in SHAPES]
    plain = (
        mock.patch.object(attention_guide, "MissedAttention", PlainMissedAttention),
        mock.patch.object(aggregator_module, "attention_kernel", plain_kernel),
    )
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    losses: dict[str, float] = {}
    for number in range(args.rounds + 1):  # the first round warms up
        for name in seconds:
            with plain[0] if name == "plain" else nullcontext():
                with plain[1] if name == "plain" else nullcontext():
                    start = clock()
                    losses[name] = sum(step(aggregator, batch) for batch in batches)
                    if number:
                        seconds[name].append(clock() - start)
    ours, plainly = (statistics.median(seconds[name]) for name in ("ours", "plain"))
    print(f"torch {torch.__version__}, {describe(args)}, {len(SHAPES)} batches")
    print(f"ours   {ours:.3f} s, guide's loss {losses['ours']:.4f}")
    print(f"plain  {plainly:.3f} s, guide's loss {losses['plain']:.4f}")
    print(f"plain / ours  {plainly / ours:.2f}")


if __name__ == "__main__":
    main()
