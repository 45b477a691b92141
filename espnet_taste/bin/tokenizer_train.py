#!/usr/bin/env python3
"""Train the speech tokenizer and unit decoder (ESPnet's program for this task)."""

import argparse
from collections.abc import Sequence

from espnet_taste.bin.training import load_task, run_task

TASK = "espnet_taste.tasks.tokenizer:TasteTokenizerTask"


def get_parser() -> argparse.ArgumentParser:
    """Return ESPnet's parser of this task (imports ESPnet)."""
    return load_task(TASK).get_parser()


def main(cmd: Sequence[str] | None = None) -> None:
    """Train; resume with ``--resume true``."""
    run_task(TASK, __doc__, cmd)


if __name__ == "__main__":
    main()
