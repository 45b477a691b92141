#!/usr/bin/env python3
"""Train the spoken LM (ESPnet's training program for this task)."""


def get_parser():
    """Return ESPnet's parser of this task (imports ESPnet)."""
    from espnet_taste.tasks.slm import TasteSpokenLMTask

    return TasteSpokenLMTask.get_parser()


def main(cmd=None) -> None:
    """Train; resume with ``--resume true``."""
    from espnet_taste.tasks.slm import TasteSpokenLMTask

    TasteSpokenLMTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
