#!/usr/bin/env python3
"""Score the answers to spoken questions: which contain an accepted one.

Reads the accepted answers (table ``answers`` of local/prepare_questions.py) and what
was said: tokens.jsonl of espnet_taste.bin.complete --with_prompt false (the LM's text:
speech to text), or a table of what a recogniser heard of it (speech to speech). Writes
``answers.json`` and ``items.jsonl``. A question without an answer is wrong and counted.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from espnet_taste.bin.command import run_command


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, required=True, help="accepted ones")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", type=Path, help="what the spoken LM wrote")
    source.add_argument("--text", type=Path, help="what was heard of its audio")
    parser.add_argument("--output_dir", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_answers", argv)


def score(args: argparse.Namespace) -> None:
    """Judge all questions and write the results."""
    from espnet_taste.data.kaldi import atomic_write, read_table
    from espnet_taste.eval.answers import judge_answers, split_accepted, summarise
    from espnet_taste.eval.normalise import NORMALISER

    accepted = {k: split_accepted(t) for k, t in read_table(args.answers).items()}
    if not accepted:
        raise ValueError(f"{args.answers}: no questions")
    judged = judge_answers(read_said(args), accepted)
    facts = {
        "output": "text" if args.text is None else "speech",
        "normaliser": NORMALISER,
        **summarise(judged),
    }
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.output_dir / "items.jsonl") as stream:
        for key in sorted(judged):
            row = {"key": key, **asdict(judged[key])}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(args.output_dir / "answers.json") as stream:
        stream.write(json.dumps(facts, indent=2) + "\n")
    interval = ""
    if facts["low"] is not None:
        interval = f" [{100 * facts['low']:.1f}, {100 * facts['high']:.1f}]"
    print(
        f"speech to {facts['output']}: {100 * facts['accuracy']:.1f} %{interval} of "
        f"{facts['num_items']} questions, {facts['num_empty']} without an answer"
    )


def read_said(args: argparse.Namespace) -> dict[str, str]:
    """Return what was said to every question."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.pipeline.interchange import TokenFile

    if args.text is not None:
        return read_table(args.text)
    tokens = TokenFile(args.tokens)
    return {key: tokens[key].text for key in tokens}


if __name__ == "__main__":
    sys.exit(main())
