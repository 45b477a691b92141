#!/usr/bin/env python3
"""Time flow matching and HiFT: guidance in one batched call against two calls a step.

Both variants are the same modules at the released size (125 M parameters, random
weights) on the same random units, turn by turn in one process: "one call" runs the
velocity network once a step on 2B rows, "two calls" runs it on B rows with conditions
and on B rows without, as the official code does. HiFT follows in both; it is timed
apart and added. A time is the median over the turns, the ratio is that of the medians
of flow + HiFT, two calls to one.

What one call saves is overhead and reading the weights, not arithmetic: expect much
where a call is bound by launches (a GPU, short speech), little on a CPU core that is
busy multiplying. Measured on one core of a busy machine (AVX-512, float32, CPU time,
one row): 1.45 for 0.2 s of speech, 1.34 for 0.5 s, 1.2 to 1.3 for 1 s, 1.12 for 2 s.
On two cores with AVX2 alone (wall time): 1.46 for 0.5 s, 1.32 for 1 s, 1.29 for 2 s.
On one H100 (float32, wall time): 2.0 to 2.1 for one row of 0.5 to 10 s, 1.9 to 2.0 for
8 rows of 1 and 4 s.

The released code, run beside ours with the same weights (one core of a busy machine
with AVX2, CPU time, one row, median of three turns), takes 1.63 times as long in flow
matching for 0.5 s of speech, 1.37 for 1 s, 1.21 for 2 s and 1.16 for 4 s; 1.02 to 1.10
in HiFT.

    python benchmarks/bench_flow.py --threads 1 --units 50 200
    python benchmarks/bench_flow.py --device cuda
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

# As in bench_packing.py: threads that wait for long must sleep.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from timing import add_machine_options, describe, make_clock  # noqa: E402
from torch import Tensor  # noqa: E402

from espnet_taste.decoder.flow import (  # noqa: E402
    ConditionalFlow,
    FlowConfig,
    FlowMatching,
    row_noise,
)
from espnet_taste.decoder.hift import (  # noqa: E402
    HiftConfig,
    HiftGenerator,
    row_draws,
)


class TwoCalls(ConditionalFlow):
    """The same flow with a call of its own for each of the two velocities."""

    def velocities(
        self, x: Tensor, conditions: Tensor, t: float, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Predict the velocity with and without conditions in two calls."""
        time = torch.full((1,), t, device=x.device, dtype=x.dtype)
        masks = (None, None) if mask is None else mask.chunk(2)
        pairs = zip(conditions.chunk(2), masks)
        return tuple(
            self.estimator(torch.cat([x, rows], dim=1), time, rows_mask)
            for rows, rows_mask in pairs
        )


@dataclass(frozen=True)
class Inputs:
    """One batch: units, their number, speakers, and all random draws."""

    units: Tensor  # (B, S) int64
    lengths: Tensor  # (B,) int64
    speaker: Tensor  # (B, speaker_dim) float32
    noise: Tensor  # (B, C, F) float32
    phase: Tensor  # (B, K) float32
    source: Tensor  # (B, K, N) float32

    @classmethod
    def make(cls, batch: int, num_units: int, device: str) -> "Inputs":
        """Make up a batch of rows of one length."""
        flow, hift = FlowConfig(), HiftConfig()
        generators = [torch.Generator().manual_seed(row) for row in range(batch)]
        lengths = torch.full((batch,), num_units)
        frames = flow.frames(lengths).tolist()
        samples = [count * hift.hop_size for count in frames]
        parts = (
            torch.randint(flow.num_units, (batch, num_units), generator=generators[0]),
            lengths,
            torch.randn(batch, flow.speaker_dim, generator=generators[0]),
            row_noise(generators, frames, flow.num_mels),
            *row_draws(generators, samples, hift.harmonics + 1),
        )
        return cls(*(part.to(device) for part in parts))


@dataclass
class Times:
    """Seconds of every turn."""

    one: list[float] = field(default_factory=list)
    two: list[float] = field(default_factory=list)
    hift: list[float] = field(default_factory=list)


class Bench:
    """The modules and the clock.

    Args:
        device: Torch device.
        clock: Returns seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float]):
        torch.manual_seed(0)
        self.clock = clock
        self.one = FlowMatching(FlowConfig()).to(device)
        with torch.device("meta"):
            self.two = FlowMatching(FlowConfig())
            self.two.decoder = TwoCalls(FlowConfig()).requires_grad_(False)
        self.two.load_state_dict(self.one.state_dict(), assign=True)  # shared
        self.hift = HiftGenerator(HiftConfig()).to(device)

    def seconds(self, work: Callable[[], Tensor]) -> tuple[float, Tensor]:
        """Time one piece of work to its end."""
        start = self.clock()
        result = work()
        return self.clock() - start, result

    @torch.inference_mode()
    def turn(self, inputs: Inputs, times: Times) -> float:
        """Run both variants once; return their largest difference."""
        data = (inputs.units, inputs.lengths, inputs.speaker, inputs.noise)
        spent, mel = self.seconds(lambda: self.one(*data))
        times.one.append(spent)
        spent, other = self.seconds(lambda: self.two(*data))
        times.two.append(spent)
        frames = FlowConfig().frames(inputs.lengths)
        spent, _ = self.seconds(
            lambda: self.hift(mel, frames, inputs.phase, inputs.source)
        )
        times.hift.append(spent)
        return float((mel - other).abs().max())


def report(num_units: int, batch: int, times: Times, difference: float) -> None:
    """Print one line."""
    one, two, hift = (
        float(np.median(values)) for values in (times.one, times.two, times.hift)
    )
    rates = FlowConfig()
    print(
        f"{batch} x {num_units / rates.unit_rate_hz:4.1f} s of speech: flow "
        f"{1e3 * one:8.1f} ms in one call, {1e3 * two:8.1f} ms in two (ratio "
        f"{two / one:.2f}), HiFT {1e3 * hift:8.1f} ms; flow + HiFT ratio "
        f"{(two + hift) / (one + hift):.2f}; mels differ by {difference:.1e}"
    )


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--units", type=int, nargs="+", default=[50, 200], help="units a row (50 a s)"
    )
    parser.add_argument("--batch", type=int, default=1, help="rows B")
    parser.add_argument("--turns", type=int, default=5, help="timed turns a length")
    add_machine_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    bench = Bench(args.device, make_clock(args))
    print(f"{describe(args)}, float32, median of {args.turns} turns")
    for num_units in args.units:
        inputs = Inputs.make(args.batch, num_units, args.device)
        bench.turn(inputs, Times())  # warm up
        times = Times()
        difference = max(bench.turn(inputs, times) for _ in range(args.turns))
        report(num_units, args.batch, times, difference)
    return 0


if __name__ == "__main__":
    sys.exit(main())
