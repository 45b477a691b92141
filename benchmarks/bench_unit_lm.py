#!/usr/bin/env python3
"""Time the unit LM: a step late in a row against an early one, a batch against one row.

The model has the released size (random weights) and draws with the released settings
(top-k 25). Two questions:

* Does a step grow with the row? Memory is reserved for the whole row once and filled;
  then steps are timed at several positions, turn by turn. What a step must read grows
  with the position (keys and values), so the ratio cannot be 1 for ever.
* What does a batch bring? ``generate_units`` writes rows of one fixed length (bounds
  that meet), alone and together; units a second of both, and their ratio.

A time is the median over the turns. Measured on one H100 (torch 2.11, 16 CPU cores):
a step takes 3.8 to 5.4 ms in float32, at position 1500 0.83 x that at 100 for one row
and 1.18 x for 16; 16 rows give 11.7 x the units a second of one (14.7 x in bfloat16,
whose autocast doubles the time of a step: it is bound by launches). On one core of a
busy CPU in float32, where a step waits for keys and values from memory, 23 ms become 36
at position 1500 (1.57 x; 2.8 x for 16 rows), and 16 rows give 6.7 x the units of one.
The released code's loop, run beside it there on the same sizes (batch 1 is all it can),
takes 85 ms a unit over a row of 300: 2.5 x as long as one of our rows, 8.8 x as long as
one of 8 together. On two cores with AVX2 alone 30 ms become 43 (1.4 x; 2.4 x for 16
rows), and 16 rows give 5.1 x the units of one. On two cores with AMX, in float32, 15 ms
become 23 (1.5 x; 2.8 x for 16 rows), and 16 rows give 5.7 x. Autocast makes bfloat16 of
all weights at every step, which a CPU should not be asked for.

    python benchmarks/bench_unit_lm.py --threads 2
    python benchmarks/bench_unit_lm.py --device cuda --dtype bfloat16
"""

import argparse
import os
import sys

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import (  # noqa: E402
    add_machine_options,
    autocast,
    describe,
    make_clock,
)

from espnet_taste.decoder.contracts import UnitSampling  # noqa: E402
from espnet_taste.decoder.generation import (  # noqa: E402
    UnitStepper,
    choose_units,
    generate_units,
)
from espnet_taste.decoder.unit_lm import UnitLM  # noqa: E402

# Spec of the released model: S3 units, Whisper's multilingual text tokens.
RELEASED = {
    "num_units": 4096,
    "text_vocab_size": 51866,
    "taste_dim": 1280,
    "speaker_dim": 192,
}


class Bench:
    """The model, the clock and the inputs of a row."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(0)
        self.args = args
        self.wait = make_clock(args)
        self.lm = UnitLM(**RELEASED).eval().to(args.device)

    @torch.inference_mode()
    def step_times(self, positions: list[int], batch: int) -> dict[int, float]:
        """Return the median seconds of one step at positions of a row."""
        length = max(positions) + self.args.steps + 1
        with autocast(self.args):
            stepper = UnitStepper(self.lm, batch, length)
            for cache in stepper.caches:
                cache.keys.normal_()
                cache.values.normal_()
            units = torch.zeros(batch, dtype=torch.int64, device=self.args.device)
            early = torch.zeros(batch, dtype=torch.bool, device=self.args.device)
            times: dict[int, list[float]] = {place: [] for place in positions}
            for turn in range(self.args.turns + 1):
                for place in positions:
                    stepper.used = place
                    stepper.positions = torch.full_like(units, place)
                    start = self.wait()
                    for _ in range(self.args.steps):
                        hidden = stepper.read_units(units)
                        logits = self.lm.output(hidden).float()
                        drawn = choose_units(logits, early, UnitSampling())
                        units = drawn.clamp(max=self.lm.num_units - 1)
                    if turn:  # the first one warms up
                        times[place].append((self.wait() - start) / self.args.steps)
        return {place: float(np.median(values)) for place, values in times.items()}

    @torch.inference_mode()
    def units_a_second(self, batch: int) -> float:
        """Return units a second of whole rows, prompts included."""
        num_tokens, per_token = 20, self.args.units / 20 / 50
        sampling = UnitSampling(
            bounds="tokens", min_token_s=per_token, max_token_s=per_token, extra_s=0.0
        )
        device = self.args.device
        tokens = torch.randint(51866, (batch, num_tokens), device=device)
        lengths = torch.full((batch,), num_tokens, device=device)
        taste = torch.randn(batch, num_tokens, RELEASED["taste_dim"], device=device)
        speaker = torch.randn(batch, RELEASED["speaker_dim"], device=device)
        rates = []
        with autocast(self.args):
            for turn in range(self.args.turns + 1):
                start = self.wait()
                made = generate_units(
                    self.lm, tokens, lengths, taste, speaker, sampling=sampling
                )
                spent = self.wait() - start
                if turn:
                    rates.append(int(made.lengths.sum()) / spent)
        return float(np.median(rates))


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, nargs="+", default=[100, 500, 1500])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--units", type=int, default=300, help="units of a whole row")
    parser.add_argument("--steps", type=int, default=20, help="steps a timed turn")
    parser.add_argument("--turns", type=int, default=5)
    add_machine_options(parser, ("float32", "bfloat16", "float16"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    bench = Bench(args)
    print(describe(args))
    for batch in args.batches:
        times = bench.step_times(args.positions, batch)
        first = times[args.positions[0]]
        for place, spent in times.items():
            print(
                f"batch {batch:3d}, position {place:5d}: {1e3 * spent:7.2f} ms a step, "
                f"{spent / first:.2f} x that at {args.positions[0]}"
            )
    rates = {batch: bench.units_a_second(batch) for batch in args.batches}
    for batch, rate in rates.items():
        gain = rate / rates[args.batches[0]]
        row = f"batch {batch:3d}, whole rows of {args.units}"
        print(
            f"{row}: {rate:8.1f} units a second, {gain:.2f} x batch {args.batches[0]}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
