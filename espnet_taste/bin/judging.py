"""What the commands that score by a speech recogniser share: options and judge."""

import argparse
from typing import TYPE_CHECKING

from espnet_taste.bin.command import parse_bool

if TYPE_CHECKING:
    from espnet_taste.eval.asr_judge import WhisperJudge


DEFAULT_JUDGE = "Systran/faster-whisper-base"


def add_judge(parser: argparse._ActionsContainer) -> None:
    """Add the options that name the judge."""
    parser.add_argument("--judge", default=DEFAULT_JUDGE)
    parser.add_argument("--language", default="en", help="'none' lets the judge guess")
    parser.add_argument(
        "--spell_numbers",
        type=parse_bool,
        default=True,
        help="forbid the judge digits; false if the references hold digits",
    )


def open_judge(
    args: argparse.Namespace, compute_type: str = "int8", num_threads: int = 0
) -> "WhisperJudge":
    """Load the judge that the options name.

    Args:
        args: The options of ``add_judge``.
        compute_type: CTranslate2's type, or float32.
        num_threads: Threads; 0 leaves it to CTranslate2.

    Raises:
        FileNotFoundError: If its weights are not found.
    """
    from espnet_taste.eval.asr_judge import JudgeOptions, WhisperJudge
    from espnet_taste.weights import fingerprint, resolve

    folder = resolve(args.judge)
    options = JudgeOptions(
        language=None if args.language == "none" else args.language,
        spell_numbers=args.spell_numbers,
        compute_type=compute_type,
    )
    name = f"{args.judge}@{fingerprint(folder)[:12]}"
    return WhisperJudge(folder, name, options, num_threads=num_threads)
