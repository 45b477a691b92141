#!/usr/bin/env python3
"""Measure the memory that encoding a set takes, against the number of utterances.

The same recordings, under ever new ids, are encoded by the command itself, each count
in a process of its own; its largest memory is read from the kernel. A command that
holds results until its end grows with the set. The recordings are taken in the order of
their table, again and again, so both runs see the same lengths if the smaller count is
a multiple of what the table holds.

It needs a trained model and its recordings, so `make bench` leaves it out. With the
model and the held-out tenth of docs/results: 1,476 MiB for 192 utterances, 1,482 for
768.

    python benchmarks/encode_memory.py --model egs2/taste/exp/TAG --wav_scp W --text T
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from espnet_taste.data.kaldi import read_table, write_table

MIB = 1024  # ru_maxrss counts KiB on Linux


def encode(args: argparse.Namespace, count: int, folder: Path) -> tuple[float, float]:
    """Encode so many utterances; return largest memory (MiB) and processor seconds."""
    wav, text = read_table(args.wav_scp), read_table(args.text)
    keys = [key for key in wav if key in text]
    ids = {f"{n:06d}": keys[n % len(keys)] for n in range(count)}
    write_table(folder / "wav.scp", {new: wav[old] for new, old in ids.items()})
    write_table(folder / "text", {new: text[old] for new, old in ids.items()})
    command = [sys.executable, "-m", "espnet_taste.bin.encode"]
    command += ["--model", args.model, "--output_dir", str(folder / "out")]
    command += ["--wav_scp", str(folder / "wav.scp"), "--text", str(folder / "text")]
    command += ["--batch_s", str(args.batch_s), "--word_times", "false"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError((folder / "log").read_text()[-2000:])
    return usage.ru_maxrss / MIB, usage.ru_utime + usage.ru_stime


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="experiment folder")
    parser.add_argument("--wav_scp", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs=2, default=[50, 500])
    parser.add_argument("--batch_s", type=float, default=60.0)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    args = get_parser().parse_args(argv)
    found = []
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder:
            memory_mb, seconds = encode(args, count, Path(folder))
        print(f"{count} utterances: {memory_mb:.0f} MiB, {seconds:.0f} s of processor")
        found.append(memory_mb)
    print(
        f"{args.counts[1] / args.counts[0]:.0f} times the utterances take "
        f"{found[1] / found[0]:.2f} times the memory"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
