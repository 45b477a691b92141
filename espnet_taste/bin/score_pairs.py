#!/usr/bin/env python3
"""How often the right half of a pair is the likelier one: SALMon, StoryCloze, others.

Reads tables ``pairs`` (local/prepare_pairs.py) and ``likelihoods.jsonl``
(espnet_taste.bin.likelihood), of one benchmark or of several: the columns SALMON,
StoryCloze and overall of the TASTE paper are means over parts. Writes ``pairs.json``
and prints a table: accuracy of every part and mean by every convention, with bootstrap
intervals over pairs, and what others have published. Pairs with a half that has no
score are counted, with the reasons (--excluded); more than --max_skipped are an error.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_taste.bin.command import run_command

if TYPE_CHECKING:
    from espnet_taste.data.pair_sets import Pair
    from espnet_taste.eval.pairs import PairScores

FIELDS = ("key", "scores", "transcripts")
NOT_LOCALISED = "not_localised"  # field of a line: why nothing is scored after a moment


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, nargs="+", required=True)
    parser.add_argument("--likelihoods", type=Path, nargs="+", required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--excluded",
        type=Path,
        nargs="*",
        default=[],
        help="excluded.jsonl of encode and likelihood: why halves have no score",
    )
    parser.add_argument(
        "--conventions", nargs="+", help="default: all that stand in a line"
    )
    parser.add_argument(
        "--max_skipped", type=float, default=0.0, help="largest share without a score"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score, get_parser(), "score_pairs", argv)


def score(args: argparse.Namespace) -> None:
    """Score all pairs and write the results."""
    from espnet_taste.data.kaldi import atomic_write
    from espnet_taste.eval.pairs import missing_parts, score_means, score_pairs

    pairs = read_all_pairs(args.pairs)
    rows = read_likelihoods(args.likelihoods)
    reasons = read_reasons(args.excluded)
    transcripts = sorted({row["transcripts"] for row in rows.values()})
    where = ", ".join(map(str, args.likelihoods))
    if len(transcripts) != 1:
        raise ValueError(
            f"{where}: words of several sources ({', '.join(transcripts)}); "
            "their scores cannot be compared"
        )
    check_parts(pairs, rows, where)
    results = {}
    for name in args.conventions or conventions_of(rows):
        scores = scores_by(rows, name, where)
        asked = scores.keys() | unscored_by(rows, name)
        results[name] = score_pairs(pairs_scored_by(pairs, asked), scores)
    check_skipped(results, args.max_skipped)
    results = {name: parts | score_means(parts) for name, parts in results.items()}
    facts = {
        "transcripts": transcripts[0],
        "conventions": {name: facts_of(parts) for name, parts in results.items()},
        "means_without": missing_parts(pair.part for pair in pairs),
        "left_out": left_out(pairs, rows, reasons),
        "made": made_of(args.pairs),
        "published": published_of(next(iter(results.values()), {})),
    }
    with atomic_write(args.output_dir / "pairs.json") as stream:
        stream.write(json.dumps(facts, indent=2) + "\n")
    print("\n".join(table_of(facts)))


def read_all_pairs(paths: Sequence[Path]) -> "list[Pair]":
    """Read tables of pairs.

    Raises:
        ValueError: If two tables have a pair in common.
    """
    from espnet_taste.data.pair_sets import read_pairs

    pairs: "dict[tuple[str, str], Pair]" = {}
    for path in paths:
        for pair in read_pairs(path):
            if pairs.setdefault((pair.part, pair.pair), pair) is not pair:
                raise ValueError(
                    f"{path}: pair {pair.pair} of {pair.part} is in another table, too"
                )
    return list(pairs.values())


def check_parts(
    pairs: "Iterable[Pair]", rows: Mapping[str, Mapping[str, Any]], where: str
) -> None:
    """Refuse parts of which nothing was scored, which no denominator would show.

    Raises:
        ValueError: It names them.
    """
    parts: dict[str, bool] = {}
    for pair in pairs:
        is_there = pair.positive in rows or pair.negative in rows
        parts[pair.part] = parts.get(pair.part, False) or is_there
    if missing := [part for part, is_there in parts.items() if not is_there]:
        raise ValueError(
            f"{where}: nothing of {', '.join(missing)}; give the likelihoods of these "
            "pairs too, or leave their table out"
        )


def made_of(paths: Sequence[Path]) -> dict[str, dict[str, int]]:
    """Return how many pairs of a kind were wanted and made, of sets that we made."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.data.pair_sets import MADE

    made = {}
    for path in paths:
        if (table := path.with_name(MADE)).is_file():
            for kind, counts in read_table(table).items():
                count, wanted = map(int, counts.split())
                made[kind] = {"made": count, "wanted": wanted}
    return made


def read_likelihoods(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Read the lines of ``espnet_taste.bin.likelihood``, by utterance id.

    Raises:
        ValueError: If a line is broken, or an utterance is there twice.
    """
    from espnet_taste.eval.json_lines import read_rows

    rows: dict[str, dict[str, Any]] = {}
    for path in paths:
        before = len(rows)
        for where, row in read_rows(path, FIELDS):
            if row["key"] in rows:
                raise ValueError(f"{where}: '{row['key']}' is repeated")
            rows[row["key"]] = row
        if len(rows) == before:
            raise ValueError(f"{path}: no likelihoods")
    return rows


def read_reasons(paths: Sequence[Path]) -> dict[str, str]:
    """Return why utterances were left out on the way, by their ids."""
    from espnet_taste.eval.json_lines import read_rows

    return {
        row["key"]: row["reason"]
        for path in paths
        for _, row in read_rows(path, ("key", "reason"))
    }


def left_out(
    pairs: "Iterable[Pair]",
    rows: Mapping[str, Mapping[str, Any]],
    reasons: Mapping[str, str],
) -> dict[str, dict[str, int]]:
    """Return part to reason to how many halves have no score, or none of a moment."""
    found: dict[str, Counter[str]] = {}
    for pair in pairs:
        for key in (pair.positive, pair.negative):
            if key not in rows:
                reason = reasons.get(key, "reason not told")
            elif NOT_LOCALISED in rows[key]:
                reason = NOT_LOCALISED
            else:
                continue
            found.setdefault(pair.part, Counter())[reason] += 1
    return {part: dict(sorted(counts.items())) for part, counts in found.items()}


def conventions_of(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the conventions that items were to be scored by, in their order."""
    names = dict.fromkeys(name for row in rows.values() for name in row["scores"])
    if any(NOT_LOCALISED in row for row in rows.values()):
        names["localised"] = None  # of which then nothing may have a score
    return list(names)


def unscored_by(rows: Mapping[str, Mapping[str, Any]], convention: str) -> set[str]:
    """Return the items that have a moment, but no score of what is said after it."""
    if convention not in ("localised", "normalised"):
        return set()
    return {key for key, row in rows.items() if NOT_LOCALISED in row}


def pairs_scored_by(pairs: "Sequence[Pair]", asked: Set[str]) -> "list[Pair]":
    """Return the pairs of the parts that a convention is for, e.g. with moments.

    Of these parts, pairs without a score are then left out and counted.
    """
    parts = {
        pair.part for pair in pairs if pair.positive in asked or pair.negative in asked
    }
    return [pair for pair in pairs if pair.part in parts]


def scores_by(
    rows: Mapping[str, Mapping[str, Any]], convention: str, where: str
) -> dict[str, float]:
    """Return the scores by one convention, of the items that have one.

    Raises:
        ValueError: If no item was scored by it, or a score is not finite.
    """
    from espnet_taste.eval.json_lines import finite

    scores = {}
    for key, row in rows.items():
        if convention in row["scores"]:
            scores[key] = finite({"key": key, **row["scores"]}, convention, where)
    if not scores:
        known = sorted({name for row in rows.values() for name in row["scores"]})
        told = [row[NOT_LOCALISED] for row in rows.values() if NOT_LOCALISED in row]
        why = told[0] if told else f"only {known}"
        raise ValueError(
            f"{where}: nothing has a '{convention}' score: {why}; choose others with "
            "--conventions"
        )
    return scores


def check_skipped(
    results: "Mapping[str, Mapping[str, PairScores]]", max_skipped: float
) -> None:
    """Stop if too many pairs have no score, by any convention.

    Raises:
        ValueError: It names convention, part and some of the pairs.
    """
    every = [(name, part) for name, parts in results.items() for part in parts.values()]
    for name, part in every:
        if len(part.skipped) > max_skipped * part.num_pairs:
            some = list(part.skipped.values())[:3]
            raise ValueError(
                f"{part.part}: {len(part.skipped)} of {part.num_pairs} pairs have a "
                f"half without '{name}' score, e.g. {some}; score them, choose other "
                "--conventions, or raise --max_skipped"
            )


def facts_of(parts: "Mapping[str, PairScores]") -> dict[str, Any]:
    """Return the outcome of all parts and means as JSON knows it."""
    return {
        name: {
            "accuracy": part.accuracy.value,
            "low": part.accuracy.low,
            "high": part.accuracy.high,
            "num_pairs": part.num_pairs,
            "num_scored": part.accuracy.num_items,
            "ties": part.ties,
            "skipped": part.skipped,
        }
        for name, part in parts.items()
    }


def published_of(parts: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Return what others have published of parts and means, by their names there."""
    from espnet_taste.data.pair_sets import IN_VOCABULARY
    from espnet_taste.eval.pairs import COLUMNS
    from espnet_taste.eval.published import beside

    names = [COLUMNS.get(part, part.removesuffix(IN_VOCABULARY)) for part in parts]
    return beside("pairs", names)


def table_of(facts: Mapping[str, Any]) -> list[str]:
    """Return lines for a person."""
    from espnet_taste.eval.pair_page import gaps
    from espnet_taste.eval.published import lines

    texts = []
    for convention, parts in facts["conventions"].items():
        for name, part in parts.items():
            line = f"{convention:12s} {name:42s} {100 * part['accuracy']:5.1f} %"
            if part["low"] is not None:
                line += f" [{100 * part['low']:.1f}, {100 * part['high']:.1f}]"
            line += f" of {part['num_scored']} pairs"
            left_out = part["num_pairs"] - part["num_scored"]
            line += f", {left_out} left out" if left_out else ""
            texts.append(line)
    return [*texts, *gaps(facts), *lines(facts["published"])]


if __name__ == "__main__":
    sys.exit(main())
