#!/usr/bin/env python3
"""Score the answers to spoken questions: which contain an accepted one.

Reads the accepted answers (table ``answers`` of local/prepare_questions.py) and what
was said: tokens.jsonl of espnet_taste.bin.complete --with_prompt false (the LM's text:
speech to text), or a table of what a recogniser heard of it (speech to speech). Writes
``answers.json``, with what is told here of how the answers were made, and
``items.jsonl``. A question without an answer is wrong and counted.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from espnet_taste.bin.command import run_command

BENCHMARKS = ("LLaMA-Questions", "Web-Questions")
NO_SHOTS = "none"


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, required=True, help="accepted ones")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokens", type=Path, help="what the spoken LM wrote")
    source.add_argument("--text", type=Path, help="what was heard of its audio")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--judged",
        choices=["first_sentence", "all"],
        help="of what was said; default: the first sentence behind examples, which "
        "are gone on with, else all",
    )
    add_facts(parser)
    return parser


def add_facts(parser: argparse.ArgumentParser) -> None:
    """Add what only the caller knows and the result must tell."""
    parser.add_argument(
        "--benchmark", choices=BENCHMARKS, help="put its published values beside ours"
    )
    parser.add_argument("--model", help="name of the spoken LM")
    parser.add_argument(
        "--transcripts", metavar="SOURCE", help="where the questions' words came from"
    )
    parser.add_argument(
        "--shots",
        metavar="FILE",
        help=f"the examples that complete was given, or {NO_SHOTS}; refused if they "
        "are among the questions",
    )
    parser.add_argument(
        "--questions", type=Path, help="their texts; default: text beside --answers"
    )
    parser.add_argument("--heard_by", help="the recogniser that wrote --text")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_answers", argv)


def score(args: argparse.Namespace) -> None:
    """Judge all questions and write the results."""
    from espnet_taste.data.kaldi import atomic_write, read_table
    from espnet_taste.eval.answers import (
        check_not_asked,
        first_sentence,
        judge_answers,
        split_accepted,
        summarise,
    )

    accepted = {k: split_accepted(t) for k, t in read_table(args.answers).items()}
    if not accepted:
        raise ValueError(f"{args.answers}: no questions")
    num_shots = count_shots(args)
    judged = args.judged or ("first_sentence" if num_shots else "all")
    said = read_said(args)
    check_not_asked(said, read_questions(args))
    if judged == "first_sentence":
        said = {key: first_sentence(text) for key, text in said.items()}
    items = judge_answers(said, accepted)
    facts = {**facts_of(args, num_shots, judged), **summarise(items)}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    with atomic_write(args.output_dir / "items.jsonl") as stream:
        for key in sorted(items):
            row = {"key": key, **asdict(items[key])}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    with atomic_write(args.output_dir / "answers.json") as stream:
        stream.write(json.dumps(facts, indent=2) + "\n")
    print("\n".join(lines_of(facts)))


def read_questions(args: argparse.Namespace) -> dict[str, str]:
    """Return the questions' texts; none if they are not told."""
    from espnet_taste.data.kaldi import read_table

    path = args.questions or args.answers.parent / "text"
    return read_table(path) if path.is_file() else {}


def count_shots(args: argparse.Namespace) -> int | None:
    """Return how many examples there were; None if that is not told.

    Raises:
        FileNotFoundError: If the questions' texts are absent.
        ValueError: If an example is a question.
    """
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.answers import check_shots
    from espnet_taste.pipeline.interchange import TokenFile

    if args.shots in (None, NO_SHOTS):
        return None if args.shots is None else 0
    shots = TokenFile(Path(args.shots))
    questions = args.questions or args.answers.parent / "text"
    if not questions.is_file():
        raise FileNotFoundError(
            f"no {questions}; --shots needs the texts of the questions: --questions"
        )
    check_shots({key: shots[key].text for key in shots}, read_table(questions))
    return len(shots)


def facts_of(
    args: argparse.Namespace, num_shots: int | None, judged: str
) -> dict[str, Any]:
    """Return how the answers were made and judged; null is what was not told."""
    from espnet_taste.eval.normalise import NORMALISER
    from espnet_taste.eval.numbers import NUMBERS
    from espnet_taste.eval.published import beside

    output = "text" if args.text is None else "speech"
    measures = [f"{args.benchmark}, {output}"] if args.benchmark else []
    return {
        "benchmark": args.benchmark,
        "output": output,
        "model": args.model,
        "transcripts": args.transcripts,
        "num_shots": num_shots,
        "heard_by": args.heard_by,
        "judged": judged,
        "normaliser": NORMALISER,
        "numbers": NUMBERS,
        "published": beside("questions", measures),
    }


def read_said(args: argparse.Namespace) -> dict[str, str]:
    """Return what was said to every question."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.pipeline.interchange import TokenFile

    if args.text is not None:
        return read_table(args.text)
    tokens = TokenFile(args.tokens)
    return {key: tokens[key].text for key in tokens}


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """Return lines for a person."""
    from espnet_taste.eval.published import lines

    interval = ""
    if facts["low"] is not None:
        interval = f" [{100 * facts['low']:.1f}, {100 * facts['high']:.1f}]"
    shots = "not told" if facts["num_shots"] is None else facts["num_shots"]
    return [
        f"speech to {facts['output']}: {100 * facts['accuracy']:.1f} %{interval} of "
        f"{facts['num_items']} questions, {facts['num_empty']} without an answer; "
        f"examples: {shots}; judged: {facts['judged']}",
        *lines(facts["published"]),
    ]


if __name__ == "__main__":
    sys.exit(main())
