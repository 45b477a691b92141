#!/usr/bin/env python3
"""Gather score files into results.json and RESULTS.md.

Every row is a system: --system ROLE=DIR, where DIR/eval/<set>/scores_<kind>.json
were written by espnet_taste.bin.score. Required roles: original, units, text_only,
no_quantizer, taste. Optional: text_only_control, no_quantizer_control, slm. A score
that a row must have and lacks, or that is not finite, makes the command fail.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADER = "<!-- Written by espnet_taste.bin.report. Do not edit. -->\n"


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--system",
        action="append",
        required=True,
        metavar="ROLE=DIR",
        help="one row; give it once per system",
    )
    parser.add_argument("--test_sets", nargs="+", required=True)
    parser.add_argument(
        "--pairs",
        action="append",
        default=[],
        metavar="SET=FILE",
        help="pairs.json of espnet_taste.bin.score_pairs",
    )
    parser.add_argument(
        "--continuations",
        action="append",
        default=[],
        metavar="SET=FILE",
        help="continuations.json of espnet_taste.bin.score_continuations",
    )
    parser.add_argument(
        "--answers",
        action="append",
        default=[],
        metavar="SET=FILE",
        help="answers.json of espnet_taste.bin.score_answers",
    )
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="gets results.json, RESULTS.md"
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--seed", type=int, help="of the training runs")
    group.add_argument(
        "--train_config",
        type=Path,
        help="config.yaml that training left; gives the seed",
    )
    parser.add_argument("--bootstrap_seed", type=int, default=0)
    parser.add_argument(
        "--config", type=Path, action="append", default=[], help="file to name by hash"
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        action="append",
        default=[],
        help="<step>/<set> folder whose exclusion summary belongs on the page",
    )
    parser.add_argument(
        "--meta",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one more line for the environment table",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    from espnet_taste.eval.report import render_page
    from espnet_taste.eval.results import Results, build_set
    from espnet_taste.eval.score_file import write_json, write_text

    try:
        systems = {role: Path(path) for role, path in _pairs("--system", args.system)}
        scores = {name: _load(systems, name) for name in args.test_sets}
        results = Results(
            metadata=_metadata(args, scores),
            sets=tuple(
                build_set(name, loaded, seed=args.bootstrap_seed)
                for name, loaded in scores.items()
            ),
            exclusions=gather_exclusions(args.data_dir),
            pairs={
                n: read_pair_scores(Path(p)) for n, p in _pairs("--pairs", args.pairs)
            },
            continuations={
                n: read_continuation_scores(Path(p))
                for n, p in _pairs("--continuations", args.continuations)
            },
            answers={
                n: read_answer_scores(Path(p))
                for n, p in _pairs("--answers", args.answers)
            },
        )
        page = HEADER + render_page(results)
        write_json(args.output_dir / "results.json", results.to_json())
        write_text(args.output_dir / "RESULTS.md", page)
    except (OSError, ValueError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


def _pairs(option: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Split ``KEY=VALUE`` options, refusing a repeated key."""
    pairs: dict[str, str] = {}
    for value in values:
        key, equals, rest = value.partition("=")
        if not equals or not key or not rest:
            raise ValueError(f"{option} must be KEY=VALUE, got '{value}'")
        if key in pairs:
            raise ValueError(f"{option} {key} is given twice")
        pairs[key] = rest
    return list(pairs.items())


def _load(systems: dict[str, Path], set_name: str) -> dict[str, list]:
    """Load the score files of every system that the set has."""
    from espnet_taste.eval.score_file import KINDS, ScoreFile, score_path

    loaded = {}
    for role, folder in systems.items():
        paths = [score_path(folder, set_name, kind) for kind in KINDS]
        loaded[role] = [ScoreFile.load(path) for path in paths if path.exists()]
        if not loaded[role]:
            raise ValueError(
                f"row '{role}': no score file in {paths[0].parent}; run "
                "espnet_taste.bin.score for it"
            )
    return loaded


def gather_exclusions(folders: Sequence[Path]) -> dict[str, dict[str, dict]]:
    """Read the exclusion summaries of many folders.

    Args:
        folders: Data folders ``.../<step>/<set>`` with a ``summary.json``.

    Returns:
        Set to step to ``{"kept": n, "excluded": {reason: n}}``.

    Raises:
        FileNotFoundError: If a folder has no summary.
        ValueError: If a summary is of another form, or a step of a set comes twice.
    """
    sets: dict[str, dict[str, dict]] = {}
    for folder in folders:
        name, step = folder.resolve().name, folder.resolve().parent.name
        steps = sets.setdefault(name, {})
        if step in steps:
            raise ValueError(f"--data_dir {folder}: step '{step}' of '{name}' twice")
        steps[step] = read_summary(folder / "summary.json")
    return sets


def read_summary(path: Path) -> dict:
    """Read what a preparation step kept and excluded."""
    content = _read_object(path)
    if not {"kept", "excluded"} <= set(content):
        raise ValueError(f"{path}: no 'kept' and 'excluded'")
    return {key: content[key] for key in ("kept", "excluded")}


def read_pair_scores(path: Path) -> dict:
    """Read what ``espnet_taste.bin.score_pairs`` wrote."""
    content = _read_object(path)
    if not {"transcripts", "conventions"} <= set(content):
        raise ValueError(f"{path}: no 'transcripts' and 'conventions'")
    return content


def read_continuation_scores(path: Path) -> dict:
    """Read what ``espnet_taste.bin.score_continuations`` wrote."""
    content = _read_object(path)
    if not {"judge", "gen_ppl", "auto_bleu"} <= set(content):
        raise ValueError(f"{path}: no 'judge', 'gen_ppl' and 'auto_bleu'")
    return content


def read_answer_scores(path: Path) -> dict:
    """Read what ``espnet_taste.bin.score_answers`` wrote."""
    content = _read_object(path)
    if not {"accuracy", "num_items", "output"} <= set(content):
        raise ValueError(f"{path}: no 'accuracy', 'num_items' and 'output'")
    return content


def _read_object(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    return content if isinstance(content, dict) else {}


def _training_seed(args: argparse.Namespace) -> str:
    """Return the seed of the training runs."""
    if args.train_config is None:
        return str(args.seed)
    from espnet_taste.eval.environment import read_train_config

    config = read_train_config(args.train_config)
    if "seed" not in config:
        raise ValueError(f"{args.train_config}: no seed; give --seed instead")
    return str(config["seed"])


def _metadata(
    args: argparse.Namespace, scores: Mapping[str, Mapping[str, Sequence[Any]]]
) -> dict[str, str]:
    """Collect what a reader needs to repeat the run.

    Args:
        args: The options.
        scores: Test set to role to score files.
    """
    from espnet_taste.eval.environment import (
        describe_environment,
        describe_makers,
        hash_files,
    )

    configs = [*args.config, *([args.train_config] if args.train_config else [])]
    hashes = hash_files(configs)
    return {
        "seed": _training_seed(args),
        "bootstrap seed": str(args.bootstrap_seed),
        **describe_environment(),
        **describe_makers(
            file.metadata
            for systems in scores.values()
            for files in systems.values()
            for file in files
        ),
        **{f"config {name}": f"sha256 {digest}" for name, digest in hashes.items()},
        **dict(_pairs("--meta", args.meta)),
    }


if __name__ == "__main__":
    sys.exit(main())
