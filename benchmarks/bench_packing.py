#!/usr/bin/env python3
"""Time a training step: packed bfloat16 against padded float32.

All variants see the same rows, batch by batch and turn by turn: word spans of made-up
utterances, cut as the recipe cuts them. A step is forward, backward, gradient clipping
and AdamW; making the layout is timed apart, because it runs in the data loader. Every
batch is new, so shapes change as they do in training.

Two models can be asked for. ``unit_lm`` is the recipe's small unit LM alone.
``tokenizer`` is what a stage of the recipe trains: frozen states of Whisper's encoder
as the data loader gives them, the aggregator (decoder of Whisper tiny.en's size, random
weights), the quantizer and that unit LM, all trained, by the model of the task. Rows
are packed in the unit LM only, so what is saved is the smaller share of such a step.

    python benchmarks/bench_packing.py --threads 1
    python benchmarks/bench_packing.py --threads 1 --model tokenizer
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

# Threads that spin while they wait take the cores from those that work as soon as the
# machine has other things to do (measured: 29 s a step instead of 0.45 s); threads that
# sleep at once wake up too late. So they spin for a fraction of a millisecond. OpenMP
# reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from timing import add_machine_options, describe, make_clock  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import WhisperConfig  # noqa: E402

from espnet_taste.data.spans import SPAN_SIZES, random_spans  # noqa: E402
from espnet_taste.decoder.layout import Row, UnitLMLayout, pack_rows  # noqa: E402
from espnet_taste.decoder.unit_lm import UnitLM  # noqa: E402
from espnet_taste.layers.precision import autocast, has_bfloat16  # noqa: E402
from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel  # noqa: E402
from espnet_taste.tokenizer.aggregator import (  # noqa: E402
    WhisperAggregator,
    build_decoder,
)
from espnet_taste.tokenizer.quantizer import RvqQuantizer  # noqa: E402
from espnet_taste.types import IGNORE  # noqa: E402

NUM_UNITS, VOCABULARY, TASTE_DIM, SPEAKER_DIM = 256, 1000, 384, 256
WORDS, WORDS_DEVIATION = 17, 6  # words an utterance
TOKENS_A_WORD, UNITS_A_WORD = 1.3, 8
FRAMES_A_UNIT = 2  # of the encoder, for units of 25 Hz
TINY_EN = {
    "vocab_size": 51864,
    "d_model": TASTE_DIM,
    "decoder_layers": 4,
    "decoder_attention_heads": 6,
    "decoder_ffn_dim": 1536,
}


@dataclass(frozen=True)
class Batch:
    """One batch and its rows."""

    tokens: Tensor  # (U, Ta) int64
    token_lengths: Tensor  # (U,) int64
    words: Tensor  # (U, Ta) int64
    frames: Tensor  # (U,) int64
    taste: Tensor  # (U, Ta, TASTE_DIM) float32
    states: Tensor  # (U, T, 2 * TASTE_DIM) float32
    speaker: Tensor  # (U, SPEAKER_DIM) float32
    rows: list[Row]


@dataclass
class Timing:
    """What one variant took."""

    seconds: list[float] = field(default_factory=list)
    layout_seconds: list[float] = field(default_factory=list)
    positions: int = 0  # with padding
    padding: int = 0

    @property
    def padding_share(self) -> float:
        """Share of the positions that hold nothing."""
        return self.padding / self.positions


def make_batch(units_a_batch: int, rng: np.random.Generator) -> Batch:
    """Make up utterances until they hold enough units, and cut them into spans."""
    rows: list[Row] = []
    word_ids: list[Tensor] = []
    unit_counts: list[int] = []
    total = 0
    while total < units_a_batch:
        num_words = max(1, round(rng.normal(WORDS, WORDS_DEVIATION)))
        tokens = np.cumsum([0, *(1 + rng.poisson(TOKENS_A_WORD - 1, num_words))])
        units = np.cumsum([0, *(2 + rng.poisson(UNITS_A_WORD - 2, num_words))])
        for first, stop in random_spans(num_words, SPAN_SIZES, rng):
            values = rng.integers(NUM_UNITS, size=units[stop] - units[first])
            span = (int(tokens[first]), int(tokens[stop]))
            rows.append(Row(len(word_ids), *span, values, ends=True))
        words = np.repeat(np.arange(num_words), np.diff(tokens))
        word_ids.append(torch.from_numpy(words))
        unit_counts.append(int(units[-1]))
        total += int(units[-1])
    frames = FRAMES_A_UNIT * torch.tensor(unit_counts)
    words = nn.utils.rnn.pad_sequence(word_ids, batch_first=True)
    return Batch(
        tokens=torch.from_numpy(rng.integers(VOCABULARY, size=words.shape)),
        token_lengths=torch.tensor([len(ids) for ids in word_ids]),
        words=words,
        frames=frames,
        taste=normal(rng, *words.shape, TASTE_DIM),
        states=normal(rng, len(frames), int(frames.max()), 2 * TASTE_DIM),
        speaker=normal(rng, len(frames), SPEAKER_DIM),
        rows=rows,
    )


def normal(rng: np.random.Generator, *shape: int) -> Tensor:
    """Return normal numbers, float32."""
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def build_unit_lm() -> UnitLM:
    """Return the recipe's unit LM with random weights."""
    return UnitLM(
        NUM_UNITS,
        VOCABULARY,
        TASTE_DIM,
        speaker_dim=SPEAKER_DIM,
        text_dim=384,
        taste_input_dim=256,
        width=256,
        feedforward=1024,
        text_layers=2,
        taste_layers=2,
        lm_layers=4,
    )


def build_tokenizer() -> TasteTokenizerModel:
    """Return what a stage of the recipe trains, with random weights."""
    aggregator = WhisperAggregator.from_module(
        build_decoder(WhisperConfig(**TINY_EN)), [1, 2], freeze_embeddings=True
    )
    quantizer = RvqQuantizer(TASTE_DIM, 64, quantizer_dropout=False)
    quantizer.initialise(
        torch.randn(2000, TASTE_DIM),
        generator=torch.Generator().manual_seed(0),
        num_iterations=2,
    )
    return TasteTokenizerModel(None, aggregator, quantizer, build_unit_lm())


def unit_lm_loss(model: UnitLM, batch: Batch, layout: UnitLMLayout) -> Tensor:
    """Return the loss of the unit LM alone."""
    taste = batch.taste.clone().requires_grad_()  # an aggregator would be trained
    logits = model(batch.tokens, taste, batch.speaker, layout)
    return F.cross_entropy(
        logits.float().flatten(0, 1), layout.labels.flatten(), ignore_index=IGNORE
    )


def tokenizer_loss(
    model: TasteTokenizerModel, batch: Batch, layout: UnitLMLayout
) -> Tensor:
    """Return the loss of the whole tokenizer; units are in the layout."""
    units = torch.zeros(len(batch.tokens), 1, dtype=torch.long)
    loss, _, _ = model(
        batch.tokens,
        batch.token_lengths,
        batch.words,
        units,
        torch.ones(len(units), dtype=torch.long),
        batch.speaker,
        layout,
        encoder_states=batch.states,
        encoder_states_lengths=batch.frames,
    )
    return loss.squeeze()


MODELS = {
    "unit_lm": (build_unit_lm, unit_lm_loss),
    "tokenizer": (build_tokenizer, tokenizer_loss),
}


class Variant:
    """A model with its optimiser and one way to lay out its rows.

    Args:
        model: Name of the model.
        max_positions: As in ``pack_rows``.
        dtype: bfloat16 for autocast, float32 for none.
    """

    def __init__(self, model: str, max_positions: int | None, dtype: torch.dtype):
        self.max_positions = max_positions
        self.dtype = dtype
        self.timing = Timing()
        torch.manual_seed(0)
        build, self.loss = MODELS[model]
        self.model = build().train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, 1e-4, fused=True)

    def lay_out(self, batch: Batch) -> UnitLMLayout:
        """Lay out the rows of a batch."""
        return pack_rows(
            batch.rows,
            num_tokens=batch.tokens.size(1),
            num_units=NUM_UNITS,
            max_positions=self.max_positions,
        )

    def step(self, batch: Batch, layout: UnitLMLayout) -> float:
        """Train on one batch; return the loss."""
        with autocast("cpu", self.dtype):
            loss = self.loss(self.model, batch, layout)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def run(self, batch: Batch, clock: Callable[[], float]) -> float:
        """Time one step."""
        start = clock()
        layout = self.lay_out(batch)
        laid_out = clock()
        loss = self.step(batch, layout)
        self.timing.seconds.append(clock() - laid_out)
        self.timing.layout_seconds.append(laid_out - start)
        self.timing.positions += layout.lm_rows.numel()
        self.timing.padding += int((layout.lm_rows == IGNORE).sum())
        return loss


def profile(variant: Variant, batches: list[Batch]) -> None:
    """Print the operators that take the time."""
    for batch in batches[:2]:
        variant.step(batch, variant.lay_out(batch))
    with torch.profiler.profile(record_shapes=True) as profiler:
        for batch in batches[2:5]:
            variant.step(batch, variant.lay_out(batch))
    table = profiler.key_averages()
    print(table.table(sort_by="self_cpu_time_total", row_limit=30))


def report(name: str, timing: Timing, units: int) -> float:
    """Print one line; return the median step in seconds."""
    median = float(np.median(timing.seconds))
    layout_ms = 1e3 * float(np.median(timing.layout_seconds))
    print(
        f"{name:16s} {1e3 * median:8.1f} ms a step  {units / median:7.0f} units/s"
        f"  padding {timing.padding_share:6.1%}  layout {layout_ms:5.2f} ms"
    )
    return median


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="unit_lm")
    parser.add_argument("--steps", type=int, default=9, help="timed steps a variant")
    parser.add_argument("--units", type=int, default=2000, help="units a batch")
    parser.add_argument(
        "--max_positions", type=int, default=384, help="longest block that rows share"
    )
    add_machine_options(parser, device=False)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--profile", action="store_true", help="profile the last variant"
    )
    return parser


def make_variants(args: argparse.Namespace) -> dict[str, Variant]:
    """Return the variants by name, the product's last."""
    variants = {
        "padded float32": Variant(args.model, None, torch.float32),
        "packed float32": Variant(args.model, args.max_positions, torch.float32),
    }
    if has_bfloat16("cpu"):
        half = Variant(args.model, args.max_positions, torch.bfloat16)
        variants["packed bfloat16"] = half
    else:
        print("no packed bfloat16: this CPU has no instructions for it")
    return variants


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    variants = make_variants(args)
    best = list(variants)[-1]
    warm_up = [make_batch(args.units, rng) for _ in range(5)]
    if args.profile:
        profile(variants[best], warm_up)
        return 0
    for batch in warm_up[:2]:
        for variant in variants.values():
            variant.step(batch, variant.lay_out(batch))
    for _ in range(args.steps):
        batch = make_batch(args.units, rng)
        for variant in variants.values():
            variant.run(batch, make_clock(args))

    lengths = [3 + r.token_stop - r.token_start + len(r.units) for r in batch.rows]
    print(
        f"{args.model}, {describe(args)}, median of {args.steps} steps, "
        f"{args.units} units a batch; last batch: {len(lengths)} rows of "
        f"{min(lengths)}..{max(lengths)} positions, mean {np.mean(lengths):.0f}"
    )
    medians = {
        name: report(name, variant.timing, args.units)
        for name, variant in variants.items()
    }
    ratio = medians["padded float32"] / medians[best]
    print(f"ratio padded float32 : {best} = {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
