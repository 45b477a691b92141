#!/usr/bin/env python3
"""Train the speech tokenizer (ESPnet's training program for this task)."""


def get_parser():
    """Return ESPnet's parser of this task (imports ESPnet)."""
    from espnet_taste.tasks.tokenizer import TasteTokenizerTask

    return TasteTokenizerTask.get_parser()


def main(cmd=None) -> None:
    """Train; resume with ``--resume true``."""
    from espnet_taste.tasks.tokenizer import TasteTokenizerTask

    TasteTokenizerTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
