"""What the training programs share: a ``--help`` that need not load ESPnet.

ESPnet's parser takes ten seconds of imports and lists some 150 options; most people
who ask for help want to know how the program is called.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path


def load_task(path: str) -> type:
    """Import a task class, ``"module:Class"``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def run_task(path: str, description: str, cmd: Sequence[str] | None) -> None:
    """Answer ``--help``, or hand the arguments to ESPnet.

    What a user can cause (an option that does not exist, absent weights or GPUs, a
    full disk) ends in a line on stderr and status 1; anything else is our fault and
    keeps its traceback.

    Args:
        path: Task class, ``"module:Class"``.
        description: What the program trains.
        cmd: Arguments; None for those of the process.
    """
    words = list(sys.argv[1:] if cmd is None else cmd)
    if words and words[0] in ("-h", "--help"):
        _short_parser(description).print_help()
        return
    task = load_task(path)
    if words and words[0] == "--help_all":
        task.get_parser().print_help()
        return
    from torch.multiprocessing import ProcessExitedException
    from yaml import YAMLError

    try:
        _check_gpus(words)
        task.main(cmd=cmd)
    except (OSError, ValueError, YAMLError) as error:
        print(f"{Path(sys.argv[0]).stem}: error: {error}", file=sys.stderr)
        sys.exit(1)
    except ProcessExitedException as error:  # of several GPUs; it has said why
        name = Path(sys.argv[0]).stem
        print(f"{name}: error: {error}; what it said stands above", file=sys.stderr)
        sys.exit(1)


def _check_gpus(words: Sequence[str]) -> None:
    """Refuse GPUs that are not there, for which torch has a traceback.

    Raises:
        ValueError: If ``--ngpu`` asks for more than this machine has.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ngpu", type=int, default=0)
    ngpu = parser.parse_known_args(words)[0].ngpu
    if ngpu > 0:
        from espnet_taste.pipeline.devices import find_device

        try:
            find_device(f"cuda:{ngpu - 1}")
        except ValueError as error:
            raise ValueError(f"--ngpu {ngpu}: {error}") from error


def _short_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        epilog="Every option of ESPnet's trainer may be given too, on the command line "
        "or in the YAML file; --print_config shows the defaults.",
    )
    parser.add_argument("--help_all", action="store_true", help="list all options")
    parser.add_argument("--config", help="YAML file; conf/ has one for every stage")
    parser.add_argument("--output_dir", help="experiment folder")
    parser.add_argument("--resume", help="true: go on where a killed run stopped")
    parser.add_argument("--ngpu", help="GPUs; 0 for the CPU")
    return parser
