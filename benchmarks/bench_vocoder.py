#!/usr/bin/env python3
"""Time HiFi-GAN on utterances of many lengths: fixed windows against whole rows.

Random weights of the V1 size, in bfloat16 where the CPU has it, one utterance at a
time, every length another: what a test set looks like. On a CPU every new shape makes
the convolution library prepare new kernels and keep them, so the variants run in
processes of their own, one after the other, and each reports seconds and the growth of
its memory. The ratio is that of processor time.

    python benchmarks/bench_vocoder.py --threads 1
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch  # noqa: E402

from espnet_taste.decoder.hifigan import (  # noqa: E402
    HifiGanConfig,
    HifiGanGenerator,
)
from espnet_taste.layers.precision import autocast  # noqa: E402

VARIANTS = ("whole rows", "windows")


def get_parser() -> argparse.ArgumentParser:
    """Build the parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--utterances", type=int, default=12)
    parser.add_argument("--shortest", type=int, default=200, help="mel frames")
    parser.add_argument("--longest", type=int, default=900, help="mel frames")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser


def memory_mb() -> float:
    """Return the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def run(args: argparse.Namespace) -> dict[str, float]:
    """Generate all utterances in one way."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    generator = HifiGanGenerator(HifiGanConfig())
    step = (args.longest - args.shortest) / max(args.utterances - 1, 1)
    sizes = [round(args.shortest + step * n) for n in range(args.utterances)]
    before_mb = memory_mb()
    start, cpu_start = time.perf_counter(), time.process_time()
    with autocast("cpu", torch.bfloat16):
        for size in sizes:
            mel = torch.randn(1, size, generator.config.mel.num_mels) - 5
            if args.variant == "windows":
                generator(mel)
            else:
                generator._generate(mel, torch.ones(1, size))
    return {
        "cpu_s": time.process_time() - cpu_start,
        "wall_s": time.perf_counter() - start,
        "speech_s": sum(sizes) / generator.config.mel.frame_rate_hz,
        "growth_mb": memory_mb() - before_mb,
    }


def main() -> int:
    """Run both variants and print their ratio."""
    args = get_parser().parse_args()
    if args.variant:
        print(json.dumps(run(args)))
        return 0
    results = {}
    for variant in VARIANTS:
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
        output = subprocess.run(command, check=True, capture_output=True, text=True)
        results[variant] = json.loads(output.stdout.splitlines()[-1])
    print(f"{'variant':<12}{'cpu s':>9}{'wall s':>9}{'s per s':>9}{'memory MB':>11}")
    for variant, row in results.items():
        share = row["cpu_s"] / row["speech_s"]
        print(
            f"{variant:<12}{row['cpu_s']:>9.1f}{row['wall_s']:>9.1f}"
            f"{share:>9.3f}{row['growth_mb']:>11.0f}"
        )
    whole, windows = (results[variant]["cpu_s"] for variant in VARIANTS)
    print(f"whole rows : windows = {whole / windows:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
