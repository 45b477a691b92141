"""What the commands share: options of work over utterances, and how they fail."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_taste.packages import MissingPackageError


def utterance_parser(description: str) -> argparse.ArgumentParser:
    """Build the parser of a command that goes over the utterances of a set."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="set made by the stage align"
    )
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def parse_bool(text: str) -> bool:
    """Parse true or false, as ESPnet's scripts write them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"expected true or false, got '{text}'")
    return text.lower() == "true"


def check_device(args: argparse.Namespace) -> None:
    """Refuse a --device that this machine lacks, before anything is loaded.

    Raises:
        ValueError: If there is no such device.
    """
    device = getattr(args, "device", None)
    if device not in (None, "cpu"):  # which needs no torch to be known
        from espnet_taste.pipeline.devices import find_device

        find_device(device)


def run_command(
    work: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    name: str,
    argv: Sequence[str] | None,
) -> int:
    """Parse, work, and turn what a user can cause into one line on stderr.

    Args:
        work: What the command does.
        parser: Its options.
        name: Its name, for the message.
        argv: Arguments; None for those of the process.

    Returns:
        Exit status: 0, or 1 with a message. Anything else that is raised is our
        fault and keeps its traceback.
    """
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        check_device(args)
        work(args)
    except (OSError, ValueError, MissingPackageError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
