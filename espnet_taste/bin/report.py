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
from collections.abc import Sequence
from pathlib import Path

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
        "--output_dir", type=Path, required=True, help="gets results.json, RESULTS.md"
    )
    parser.add_argument("--seed", type=int, required=True, help="of the training runs")
    parser.add_argument("--bootstrap_seed", type=int, default=0)
    parser.add_argument(
        "--config", type=Path, action="append", default=[], help="file to name by hash"
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        action="append",
        default=[],
        help="formatted set whose exclusion summaries belong on the page",
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
        results = Results(
            metadata=_metadata(args),
            sets=tuple(
                build_set(name, _load(systems, name), seed=args.bootstrap_seed)
                for name in args.test_sets
            ),
            exclusions={path.name: read_exclusions(path) for path in args.data_dir},
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


def read_exclusions(data_dir: Path) -> dict[str, dict]:
    """Read the exclusion summaries of a formatted set.

    Args:
        data_dir: Folder with one or more ``*summary*.json``; each holds ``kept`` and
            ``excluded``, or several of these by step.

    Returns:
        Step to ``{"kept": n, "excluded": {reason: n}}``.

    Raises:
        ValueError: If there is no summary or one is of another form.
    """
    paths = sorted(data_dir.glob("*summary*.json"))
    if not paths:
        raise ValueError(f"{data_dir}: no exclusion summary (summary.json)")
    steps: dict[str, dict] = {}
    for path in paths:
        content = json.loads(path.read_text(encoding="utf-8"))
        named = {path.stem: content} if "kept" in content else content
        for step, summary in named.items():
            if not isinstance(summary, dict) or not {"kept", "excluded"} <= set(
                summary
            ):
                raise ValueError(f"{path}: '{step}' has no 'kept' and 'excluded'")
            steps[step] = {key: summary[key] for key in ("kept", "excluded")}
    return steps


def _metadata(args: argparse.Namespace) -> dict[str, str]:
    """Collect what a reader needs to repeat the run."""
    from espnet_taste.eval.environment import describe_environment, hash_files

    hashes = hash_files(args.config)
    return {
        "seed": str(args.seed),
        "bootstrap seed": str(args.bootstrap_seed),
        **describe_environment(),
        **{f"config {name}": f"sha256 {digest}" for name, digest in hashes.items()},
        **dict(_pairs("--meta", args.meta)),
    }


if __name__ == "__main__":
    sys.exit(main())
