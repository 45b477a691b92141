#!/usr/bin/env python3
"""Prepare spoken questions with accepted answers: data folder and table of answers.

    --layout parquet      LLaMA-Questions: question, answer and audio in .parquet files
    --layout csv          Web-Questions and others: a .csv beside a folder of audio

The folder has wav.scp, text (the questions), utt2spk and answers (id, accepted answers
with | between them).
"""

import argparse
import ast
import csv
import io
import json
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from espnet_taste.data.corpora import (
    Utterance,
    check_owner,
    corpus_parser,
    require_folder,
    run_script,
    write_sets,
)
from espnet_taste.data.hub_tables import read_rows, write_sound
from espnet_taste.data.kaldi import write_table

SOURCES = {
    "parquet": (
        "its .parquet files",
        "huggingface.co/datasets/fixie-ai/llama-questions",
    ),
    "csv": (
        "a .csv and its audio",
        "huggingface.co/datasets/baichuan-inc/OpenAudioBench",
    ),
}
NUM_QUESTIONS = {"parquet": 300}
CORPUS = "questions"
NAMING = "; name them by --question_column, --answer_column and --audio_column"


@dataclass(frozen=True)
class Question:
    """One question on disk."""

    text: str
    answers: tuple[str, ...]
    audio: Path


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = corpus_parser(__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--layout", choices=sorted(SOURCES), required=True)
    parser.add_argument("--corpus_dir", type=Path, help="what was downloaded")
    parser.add_argument("--set", required=True, help="name of the data folder to make")
    parser.add_argument("--question_column", default="question")
    parser.add_argument("--answer_column", default="answer")
    parser.add_argument("--audio_column", default="audio")
    parser.add_argument(
        "--num_questions",
        type=int,
        help="how many there must be; default: 300, those of LLaMA-Questions, for "
        "parquet, else any number, which is told",
    )
    return parser


def main(argv: Iterable[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_script("prepare_questions", get_parser(), prepare, argv)


def prepare(args: argparse.Namespace) -> None:
    """Write the data folder and the table of answers."""
    folder = require_folder(args.corpus_dir, *SOURCES[args.layout])
    target = args.data_root / args.set
    read = read_parquet if args.layout == "parquet" else read_csv
    found = list(read(folder, args))
    expected = args.num_questions or NUM_QUESTIONS.get(args.layout)
    if expected is not None and len(found) != expected:
        raise ValueError(
            f"{folder}: {len(found)} questions, expected {expected}; the download is "
            "not complete, or not this benchmark (--num_questions)"
        )
    keys = [f"{args.set}-{number:05d}" for number in range(len(found))]
    rows = [
        Utterance(key, key, str(question.audio.resolve()), question.text)
        for key, question in zip(keys, found, strict=True)
    ]
    write_sets(args.data_root, {args.set: rows}, CORPUS)
    answers = {k: "|".join(q.answers) for k, q in zip(keys, found, strict=True)}
    write_table(target / "answers", answers)
    if expected is None:
        print("how many there must be is not known here: --num_questions checks it")


def read_csv(folder: Path, args: argparse.Namespace) -> Iterator[Question]:
    """Read the one .csv of a folder; audio lies beside it or in a folder below.

    Raises:
        ValueError: If there is not one .csv, or columns, answers or audio are missing.
    """
    tables = sorted(folder.glob("*.csv"))
    if len(tables) != 1:
        raise ValueError(f"{folder}: expected one .csv, found {len(tables)}")
    files = defaultdict(list)
    for path in folder.rglob("*"):
        if path.is_file():
            files[path.name].append(path)
    with tables[0].open(encoding="utf-8-sig", newline="") as stream:
        for number, row in enumerate(csv.DictReader(stream), start=2):
            where = f"{tables[0]}:{number}"
            _require_columns(row, args, where)
            name = row[args.audio_column]
            here = [folder / name] if (folder / name).is_file() else []
            paths = here or files[Path(name).name]
            if len(paths) != 1:
                raise ValueError(
                    f"{where}: {'several' if paths else 'no'} audio '{name}' below "
                    f"{folder}"
                )
            accepted = _accepted(row[args.answer_column], where)
            yield Question(row[args.question_column], accepted, paths[0])


def read_parquet(folder: Path, args: argparse.Namespace) -> Iterator[Question]:
    """Read .parquet files of a Hugging Face dataset; audio goes into the data folder.

    Raises:
        ValueError: If there are no files, or columns, audio or answers are missing.
    """
    target = args.data_root / args.set
    check_owner(target, CORPUS)  # before anything is written there
    columns = (args.question_column, args.answer_column, args.audio_column)
    for number, (where, row) in enumerate(read_rows(folder, columns, NAMING)):
        path = target / "audio" / f"{number:05d}.wav"
        write_sound(row[args.audio_column], path, where)
        accepted = _accepted(row[args.answer_column], where)
        yield Question(row[args.question_column], accepted, path)


def _require_columns(row: dict, args: argparse.Namespace, where: str) -> None:
    wanted = (args.question_column, args.answer_column, args.audio_column)
    if None in row:
        raise ValueError(
            f"{where}: more fields than columns; a comma in a field needs quotes"
        )
    # A line with too few fields has None in the last ones.
    missing = [name for name in wanted if row.get(name) is None]
    if missing:
        there = sorted(name for name, value in row.items() if value is not None)
        raise ValueError(f"{where}: no column {missing}, there are {there}{NAMING}")


def _accepted(value: object, where: str) -> tuple[str, ...]:
    """Return accepted answers: a text, a list, or a list written as one."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = _read_list(value.strip(), where)
    values = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, str | int | float) for one in values):
        raise ValueError(f"{where}: answers must be texts, got {values!r:.80}")
    answers = tuple(" ".join(str(one).replace("|", " ").split()) for one in values)
    if not any(answers):
        raise ValueError(f"{where}: no answer")
    return tuple(answer for answer in answers if answer)


def _read_list(text: str, where: str) -> list:
    """Read a list as JSON or Python writes it.

    Raises:
        ValueError: If it is neither, or texts stand in it without commas, which Python
            would join.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        values = ast.literal_eval(text)
        words = tokenize.generate_tokens(io.StringIO(text).readline)
        num_texts = sum(word.type == tokenize.STRING for word in words)
    except (ValueError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(f"{where}: no list of answers: {text:.80}") from error
    if num_texts != sum(isinstance(value, str) for value in values):
        raise ValueError(f"{where}: no list of answers, commas are missing: {text:.80}")
    return values


if __name__ == "__main__":
    sys.exit(main())
