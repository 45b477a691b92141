#!/usr/bin/env python3
"""Run an ESPnet program with TASTE's classes registered.

Stock recipes start everything as ``${python} -m espnet2.bin.X``. Give them

    ./run.sh --python "python3 -m espnet_taste.run"

and ``encoder: taste_whisper`` (or any class registered by a package named in
``$ESPNET_TASTE_PLUGINS``, comma separated) can be chosen in their YAML files.
"""

import argparse
import importlib
import os
import runpy
import sys
from collections.abc import Sequence

import espnet_taste  # noqa: F401  (registers)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser of the runner itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", dest="module", help="module to run, as python -m does")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Import the plugins, then become the program that was asked for."""
    args = get_parser().parse_args(argv)
    for name in filter(None, os.environ.get("ESPNET_TASTE_PLUGINS", "").split(",")):
        importlib.import_module(name.strip())
    if args.module:
        sys.argv = [args.module, *args.args]
        runpy.run_module(args.module, run_name="__main__", alter_sys=True)
    elif args.args:
        sys.argv = list(args.args)
        runpy.run_path(args.args[0], run_name="__main__")
    else:
        get_parser().error("name a module with -m, or a script")


if __name__ == "__main__":
    main()
