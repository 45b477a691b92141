"""What the benchmarks share: the clock, and the options that choose the machine."""

import argparse
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from espnet_taste.layers.precision import has_bfloat16

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_machine_options(
    parser: argparse.ArgumentParser,
    dtypes: tuple[str, ...] = (),
    device: bool = True,
) -> None:
    """Add --threads and --clock, and --device and --dtype where they mean something.

    Args:
        parser: Gets the options.
        dtypes: Types that the benchmark knows, the default first; none for no choice.
            On a CPU without instructions for bfloat16 the default is float32.
        device: The benchmark can run elsewhere than on a CPU.
    """
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: on a busy machine"
    )
    if device:
        parser.add_argument("--device", default="cpu")
    if dtypes:
        slow = dtypes[0] == "bfloat16" and not has_bfloat16("cpu")
        default = "float32" if slow else dtypes[0]
        parser.add_argument("--dtype", choices=dtypes, default=default)


def make_clock(args: argparse.Namespace) -> Callable[[], float]:
    """Return what tells the time, in seconds, once the device has finished."""
    clock = CLOCKS[args.clock]
    if not getattr(args, "device", "cpu").startswith("cuda"):
        return clock

    def wait() -> float:
        torch.cuda.synchronize()
        return clock()

    return wait


def describe(args: argparse.Namespace) -> str:
    """Return device, threads, clock and type in words."""
    words = [
        getattr(args, "device", "cpu"),
        f"{args.threads} thread(s)",
        f"{args.clock} time",
    ]
    if hasattr(args, "dtype"):
        words.append(args.dtype)
    return ", ".join(words)


def autocast(args: argparse.Namespace) -> AbstractContextManager:
    """Return the context that computes in the wanted type."""
    if args.dtype == "float32":
        return nullcontext()
    return torch.autocast(args.device.split(":")[0], getattr(torch, args.dtype))
