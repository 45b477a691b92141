#!/usr/bin/env python3
"""Time a training step of the spoken LM: index tensors against a loop over words.

Both variants are the same weights on the same batches, turn by turn in one process:
forward and backward of the recipe's losses. "index tensors" is the product: what the
LLM reads and where words are predicted are gathers by tensors that the data loader
made. "loop over words" does for every word of every row what the layout says, as the
released training code does: embeds its tokens, decodes its codes, fuses, appends; and
runs the head word by word. Losses must agree.

What the loop costs is launches and waiting, so the share of a step that it takes
depends on the LLM around it. Both are given: the layout alone (fusion and head, forward
and backward, without the LLM) and the whole step. Measured on two cores without AVX-512
or bfloat16 (float32, SmolLM2-135M): the layout 13.5 x, the whole step 1.08 x; on two
with AMX (bfloat16): 12.9 x and 1.02 x.

    python benchmarks/bench_slm_step.py --threads 2
    python benchmarks/bench_slm_step.py --device cuda
"""

import argparse
import os
import sys
from statistics import median

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from bench_slm import (  # noqa: E402
    CODEBOOK_SIZE,
    LATENT_DIM,
    NUM_CODEBOOKS,
    build_slm,
)
from timing import add_machine_options, autocast, describe, make_clock  # noqa: E402
from torch import Tensor  # noqa: E402
from torch.nn.utils.rnn import pad_sequence  # noqa: E402

from espnet_taste.layers.latent_head import Latent  # noqa: E402
from espnet_taste.slm.delay import DelayBatch, collate, delay_words  # noqa: E402
from espnet_taste.slm.model import SpokenLM  # noqa: E402
from espnet_taste.types import IGNORE  # noqa: E402

TOKENS_A_WORD = 1.3


class LoopedSpokenLM(SpokenLM):
    """The same model with a loop over rows and words where indices would do."""

    def embed(self, batch: DelayBatch) -> Tensor:
        """Return what the LLM reads, word after word."""
        start = self.embed_start(1)[0]
        rows = [
            torch.cat([start, *self._words(batch, row)])
            for row in range(len(batch.tokens))
        ]
        return pad_sequence(rows, batch_first=True)

    def _words(self, batch: DelayBatch, row: int) -> list[Tensor]:
        """Return the fused positions of every word of a row."""
        tokens = batch.tokens[row]
        length = int((tokens != IGNORE).sum())
        sources = batch.taste_words[row, :length].tolist()
        edges = [0]
        edges += [n for n in range(1, length) if sources[n] != sources[n - 1]]
        words = []
        for begin, end in zip(edges, [*edges[1:], length], strict=True):
            text = self.embed_tokens(tokens[begin:end]).float()
            if end > length - self.delay:
                is_pad = tokens[begin:end] < 0
                text = torch.where(is_pad[:, None], self.pad_text, text)
            taste = self.pad_taste
            if sources[begin] >= 0:
                taste = self.embed_codes(batch.word_codes[row, sources[begin]])
            words.append(self.fuse(taste.expand(end - begin, -1), text))
        return words

    def predict_words(
        self, hidden: Tensor, batch: DelayBatch, noise: Tensor | None = None
    ) -> Latent:
        """Run the head word by word."""
        size = batch.word_codes.size(1)
        rows = []
        for row, labels in enumerate(batch.label_words.tolist()):
            places = [place for place, word in enumerate(labels) if word >= 0]
            drawn = [None if noise is None else noise[row, n] for n in range(size)]
            one = [
                self.run_head(hidden[row, p], drawn[n]) for n, p in enumerate(places)
            ]
            rows.append(one)
        return Latent(
            pad_sequence([torch.stack([x.mu for x in row]) for row in rows], True),
            rows[0][0].logvar,
            pad_sequence([torch.stack([x.value for x in row]) for row in rows], True),
        )


def make_batch(args: argparse.Namespace, rng: np.random.Generator) -> DelayBatch:
    """Return rows of words with codes, as many as the recipe's batches hold."""
    layouts, codes = [], []
    for _ in range(args.rows):
        num_words = int(rng.integers(args.words // 2, args.words * 3 // 2 + 1))
        tokens = rng.poisson(TOKENS_A_WORD - 1, num_words) + 1
        owner = np.repeat(np.arange(num_words), tokens)
        layouts.append(delay_words(rng.integers(100, 4000, len(owner)), owner, delay=1))
        codes.append(rng.integers(0, CODEBOOK_SIZE, (num_words, NUM_CODEBOOKS)))
    return collate(layouts, codes).to(args.device)


def make_models(args: argparse.Namespace) -> dict[str, SpokenLM]:
    """Return both variants; they share every weight."""
    slm = build_slm(args.llm, args.dtype).to(args.device).train()
    looped = LoopedSpokenLM.__new__(LoopedSpokenLM)
    looped.__dict__ = slm.__dict__
    return {"index tensors": slm, "loop over words": looped}


def layout_only(slm: SpokenLM, batch: DelayBatch, noise: Tensor) -> Tensor:
    """Fuse and run the head, with what the LLM reads in place of what it says."""
    read = slm.embed(batch)
    prediction = slm.predict_words(read, batch, noise)
    return slm.head.losses(prediction, batch.word_codes, slm.codebooks).loss


def whole_step(slm: SpokenLM, batch: DelayBatch, noise: Tensor) -> Tensor:
    """Return the loss of the whole model."""
    return slm(batch, noise).loss


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llm", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--words", type=int, default=17, help="mean words a row")
    parser.add_argument("--steps", type=int, default=5, help="timed steps a variant")
    add_machine_options(parser, ("bfloat16", "float32"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    models, now = make_models(args), make_clock(args)
    print(f"{args.llm}: {describe(args)}, median of {args.steps} steps")
    for part in (layout_only, whole_step):
        rng = np.random.default_rng(0)
        spent: dict[str, list[float]] = {name: [] for name in models}
        apart = 0.0
        for turn in range(args.steps + 1):  # the first warms up
            batch = make_batch(args, rng)
            size = (*batch.word_codes.shape[:2], LATENT_DIM)
            noise = torch.randn(size, device=args.device)
            losses = []
            for name, slm in models.items():
                start = now()
                with autocast(args):
                    loss = part(slm, batch, noise)
                loss.backward()
                slm.zero_grad(set_to_none=True)
                spent[name].append(now() - start)
                losses.append(float(loss.detach()))
            apart = max(apart, abs(losses[0] - losses[1]) / abs(losses[0]))
        ours, looped = (median(times[1:]) for times in spent.values())
        print(
            f"{part.__name__}: {1e3 * ours:.1f} ms by index tensors, "
            f"{1e3 * looped:.1f} ms by loops, {looped / ours:.2f} x; losses differ by "
            f"{apart:.1e} of themselves"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
