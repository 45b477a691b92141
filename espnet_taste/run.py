#!/usr/bin/env python3
"""Run an ESPnet program with TASTE's classes registered.

Stock recipes start everything as ``${python} -m espnet2.bin.X``. Give them

    ./run.sh --python "python3 -m espnet_taste.run"

and ``encoder: taste_whisper`` (or any class registered by a package named in
``$ESPNET_TASTE_PLUGINS``, comma separated) can be chosen in their YAML files, also
where a training starts a process for every GPU.
"""

import importlib
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing import spawn
from types import ModuleType

import espnet_taste  # noqa: F401  (registers)

USAGE = (
    "usage: python3 -m espnet_taste.run [-m MODULE | -c CODE | SCRIPT | -] [ARGS ...]"
)

_plain_command_line = spawn.get_command_line


def main(argv: Sequence[str] | None = None) -> None:
    """Import the plugins, then become the program that was asked for.

    Args:
        argv: ``-m MODULE ARGS...``, ``-c CODE ARGS...``, ``SCRIPT ARGS...`` or ``-``,
            as after ``python3``. Read by hand: argparse would claim the program's own
            options.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help") or words in (["-m"], ["-c"]):
        print(__doc__, USAGE)
        sys.exit(0 if words and words[0] not in ("-m", "-c") else 2)
    if words[0].startswith("-") and words[0] not in ("-m", "-c", "-"):
        sys.exit(
            f"espnet_taste.run: {words[0]} is no program; options of the interpreter "
            f"stand before it: python3 {words[0]} -m espnet_taste.run"
        )
    import_plugins()
    _become(words)


def import_plugins() -> None:
    """Import what ``$ESPNET_TASTE_PLUGINS`` names, here and in processes to come.

    A process that multiprocessing starts afresh ("spawn") knows the program alone, not
    who ran it: its command line must ask for the plugins.
    """
    for name in filter(None, os.environ.get("ESPNET_TASTE_PLUGINS", "").split(",")):
        importlib.import_module(name.strip())
    spawn.get_command_line = _command_line


def _command_line(**kwds: int) -> list[str]:
    """Return the command of a new process, the plugins before all else."""
    line = _plain_command_line(**kwds)
    if "-c" in line:
        # The modules' places now: the folder of a script is not found by itself.
        places = [str(place) for place in sys.path]
        begin = (
            f"import sys; sys.path[:] = {places!r}; import espnet_taste.run as run; "
        )
        at = line.index("-c") + 1
        line[at] = f"{begin}run.import_plugins(); {line[at]}"
    return line


def _become(words: list[str]) -> None:
    kind = words[0]
    sys.argv = words[1:] if kind == "-m" else words
    if kind == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *words[2:]]
        _run_code(words[1], "<string>")
    elif kind == "-":
        _run_code(sys.stdin.read(), "<stdin>")
    else:
        # In front of the current folder, not in its place: plugins may lie there.
        sys.path.insert(0, os.path.dirname(os.path.realpath(kind)))
        runpy.run_path(kind, run_name="__main__")


def _run_code(code: str, name: str) -> None:
    program = ModuleType("__main__")
    sys.modules["__main__"] = program
    exec(compile(code, name, "exec"), vars(program))


if __name__ == "__main__":
    main()
