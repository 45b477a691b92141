#!/usr/bin/env python3
"""Train the unit-to-mel vocoder (ESPnet's training program for this task)."""


def get_parser():
    """Return ESPnet's parser of this task (imports ESPnet)."""
    from espnet_taste.tasks.unit_to_mel import UnitToMelTask

    return UnitToMelTask.get_parser()


def main(cmd=None) -> None:
    """Train; resume with ``--resume true``."""
    from espnet_taste.tasks.unit_to_mel import UnitToMelTask

    UnitToMelTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
