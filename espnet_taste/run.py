#!/usr/bin/env python3
"""Run an ESPnet program with TASTE's classes registered.

Stock recipes start everything as ``${python} -m espnet2.bin.X``. Give them

    ./run.sh --python "python3 -m espnet_taste.run"

and ``encoder: taste_whisper`` (or any class registered by a package named in
``$ESPNET_TASTE_PLUGINS``, comma separated) can be chosen in their YAML files.
"""

import importlib
import os
import runpy
import sys
from collections.abc import Sequence

import espnet_taste  # noqa: F401  (registers)


def main(argv: Sequence[str] | None = None) -> None:
    """Import the plugins, then become the program that was asked for.

    Args:
        argv: ``-m MODULE ARGS...`` or ``SCRIPT ARGS...``, as after ``python3``.
            Read by hand: argparse would claim the program's own options.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help") or words == ["-m"]:
        print(__doc__, "usage: python3 -m espnet_taste.run [-m MODULE | SCRIPT] ...")
        sys.exit(0 if words and words[0] != "-m" else 2)
    for name in filter(None, os.environ.get("ESPNET_TASTE_PLUGINS", "").split(",")):
        importlib.import_module(name.strip())
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main()
