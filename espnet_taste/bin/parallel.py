"""Parts of a command's work in processes of their own.

Every process starts afresh (not as a copy of this one): a copy would share the locks
of threads and GPUs. Whatever a part finishes it must put on disk itself, so that the
same command goes on after a kill.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

Work = Callable[[argparse.Namespace, list[str], int], None]


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Add --nj, --ngpu and --device."""
    parser.add_argument(
        "--nj", type=int, help="processes; default: one, or one a GPU with --ngpu"
    )
    parser.add_argument("--ngpu", type=int, default=0, help="GPUs; 0: work on the CPU")
    parser.add_argument("--device", help="torch device of all jobs, instead of --ngpu")


def device_of(args: argparse.Namespace, job: int) -> str:
    """Return the torch device of a job, counted from 0: GPUs are dealt out in turn."""
    if args.device:
        return args.device
    return f"cuda:{job % args.ngpu}" if args.ngpu else "cpu"


def in_processes(work: Work, args: argparse.Namespace, keys: Sequence[str]) -> None:
    """Divide keys over ``--nj`` processes; one job needs no process.

    Args:
        work: Function of a module, gets the arguments, its keys and its number from 0.
        args: With ``nj`` and ``ngpu``.
        keys: What is to be done; each job gets a stretch of them.

    Raises:
        ValueError: If ``--nj`` or ``--ngpu`` is out of range, or a process was killed.
        OSError: What a job raises comes through, the first one's.
    """
    num_jobs = args.nj if args.nj is not None else max(1, args.ngpu)
    if num_jobs < 1 or args.ngpu < 0:
        raise ValueError(
            f"--nj must be at least 1 and --ngpu 0, got {num_jobs} and {args.ngpu}"
        )
    parts = split_evenly(keys, num_jobs)
    if len(parts) < 2:
        for part in parts:
            work(args, part, 0)
        return
    with ProcessPoolExecutor(
        len(parts), get_context("spawn"), initializer=_begin
    ) as pool:
        jobs = [pool.submit(work, args, part, n) for n, part in enumerate(parts)]
        try:
            for job in jobs:
                job.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a job was killed, perhaps for want of memory; run the same command "
                "again, it goes on where it was, with fewer --nj or smaller batches"
            ) from error


def split_evenly(keys: Sequence[str], num_parts: int) -> list[list[str]]:
    """Divide keys into at most so many stretches, none of them empty."""
    count = min(num_parts, len(keys))
    edges = [part * len(keys) // count for part in range(count + 1)] if count else []
    return [list(keys[start:stop]) for start, stop in zip(edges, edges[1:])]


def _begin() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
