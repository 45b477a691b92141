#!/usr/bin/env python3
"""How likely a spoken LM finds utterances: one line an item, every way of adding up.

Reads tokens.jsonl (espnet_taste.bin.encode) and writes ``likelihoods.jsonl``: the
log-likelihoods of every token and of every word's codes in nats, and the scores of all
conventions (see ``slm/conventions.py``). One forward pass an item; a killed run goes on
where it was. What cannot be scored is counted in ``excluded.jsonl``.

A text may stand before the speech (--text_before) or follow it, and is then what is
scored (--text_after): stories whose beginning or ending is written. --normalise true
reads what is scored once more by itself and takes that off.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espnet_taste.bin.command import parse_bool, run_command
from espnet_taste.bin.token_work import (
    add_max_excluded,
    add_released,
    deciding,
    first_readable,
    naming_full_gpu,
    open_spoken_lm,
    open_tokens,
    refuse_changed,
    spoil_no_other,
    tokens_parser,
)
from espnet_taste.data.exclusions import ExclusionError, Journal
from espnet_taste.data.pair_sets import NO_MOMENT

if TYPE_CHECKING:
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.scoring import ScoredItem
    from espnet_taste.pipeline.tokens import TasteTokens
    from espnet_taste.slm.conventions import ItemLikelihood

JOURNAL = ".journal.jsonl"
DIGITS = 6  # decimals of a log-likelihood
AROUND = ("text_before", "text_after")
Around = Mapping[str, Mapping[str, str] | None]  # name in AROUND to texts by id


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = tokens_parser(__doc__)
    parser.add_argument(
        "--transcripts",
        required=True,
        metavar="SOURCE",
        help="where the words came from, e.g. given, or the recogniser's name: it "
        "changes scores, so it stands in every result",
    )
    parser.add_argument(
        "--moments",
        type=Path,
        help="table of utterance ids and seconds: score what is said after them",
    )
    parser.add_argument(
        "--window_s", type=float, default=float("inf"), help="seconds after a moment"
    )
    parser.add_argument(
        "--text_before",
        type=Path,
        help="table of utterance ids and texts that stand before: read, not scored",
    )
    parser.add_argument(
        "--text_after",
        type=Path,
        help="table of utterance ids and texts that follow: only they are scored",
    )
    parser.add_argument(
        "--normalise",
        type=parse_bool,
        default=False,
        help="score also by what the part is worth less without what stands before it",
    )
    parser.add_argument("--batch_size", type=int, default=8, help="utterances")
    parser.add_argument("--device", default="cpu")
    add_released(parser)
    add_max_excluded(parser, 0.0, "scored")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(score_items, get_parser(), "likelihood", argv)


def score_items(args: argparse.Namespace) -> None:
    """Score every utterance that is not done yet, then write the tables."""
    from espnet_taste.data.exclusions import check_share, summary_table, write_outcome

    tokens, keys = open_tokens(args)
    if args.batch_size < 1 or not args.window_s > 0:
        raise ValueError("--batch_size must be at least 1 and --window_s above 0")
    moments = read_moments(args.moments, keys)
    around = {name: read_texts(getattr(args, name), keys) for name in AROUND}
    if moments is not None and any(around.values()):
        raise ValueError("--moments is for spoken endings, without texts around them")
    if args.normalise and moments is None and not any(around.values()):
        raise ValueError(
            "--normalise needs something that stands before: --moments, --text_before "
            "or --text_after"
        )
    names = ("model", "tokens", "transcripts", "moments", "window_s", *AROUND)
    names += ("normalise", "llm", "whisper")
    journal = Journal(args.output_dir / JOURNAL, deciding(args, names))
    made_of = {key: tokens.digest(key) for key in keys}
    refuse_changed(args.output_dir, args.tokens, made_of, journal.rows)
    left = [key for key in keys if key not in journal.rows]
    if left:
        score_left(args, tokens, left, moments, around, journal)
    outcomes = {key: journal.rows[key] for key in keys}
    write_results(args.output_dir, outcomes)
    summary = write_outcome(args.output_dir, outcomes, {}, args.max_excluded)
    print(f"{args.output_dir / 'likelihoods.jsonl'}\n{summary_table(summary)}")
    check_share(summary, args.output_dir)


def read_moments(
    path: Path | None, keys: Sequence[str]
) -> dict[str, float | None] | None:
    """Read the table of moments; None where it has a dash.

    Raises:
        ValueError: If an utterance is not in it, or its moment is no number.
    """
    from espnet_taste.data.kaldi import read_table

    if path is None:
        return None
    table = read_table(path)
    missing = [key for key in keys if key not in table]
    if missing:
        raise ValueError(f"{path}: no moment of {len(missing)}, e.g. '{missing[0]}'")
    moments: dict[str, float | None] = {}
    for key in keys:
        try:
            moments[key] = None if table[key] == NO_MOMENT else float(table[key])
        except ValueError as error:
            raise ValueError(
                f"{path}: '{key}' has '{table[key]}', expected seconds, or "
                f"{NO_MOMENT} where nothing changes"
            ) from error
    return moments


def read_texts(path: Path | None, keys: Sequence[str]) -> dict[str, str] | None:
    """Read a table of texts.

    Raises:
        ValueError: If an utterance has none.
    """
    from espnet_taste.data.kaldi import read_table

    if path is None:
        return None
    table = read_table(path)
    missing = [key for key in keys if not table.get(key, "").strip()]
    if missing:
        raise ValueError(f"{path}: no text of {len(missing)}, e.g. '{missing[0]}'")
    return table


def score_left(
    args: argparse.Namespace,
    tokens: "TokenFile",
    keys: Sequence[str],
    moments: Mapping[str, float | None] | None,
    around: Around,
    journal: Journal,
) -> None:
    """Score utterances and note every outcome at once."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.pipeline.tokens import require_same_tokenizer

    lm = open_spoken_lm(args)
    if first := first_readable(tokens, keys):
        require_same_tokenizer(tokens[first], lm.tokenizer.models, "score")

    def score(part: Sequence[str]) -> list[dict[str, Any]]:
        items = [item_of(tokens[k], k, moments, around, args.window_s) for k in part]
        size = args.batch_size
        found = lm.item_likelihoods(items, args.normalise, batch_size=size)
        return [row_of(item, *both) for item, both in zip(items, found, strict=True)]

    with progress(None, "likelihood", total=len(keys)) as bar:
        for batch in in_batches(keys, args.batch_size):
            with naming_full_gpu(args, "batch_size", batch):
                results = spoil_no_other(batch, score, "not_scored")
            for key, result in zip(batch, results, strict=True):
                if isinstance(result, ExclusionError):
                    journal.exclude(key, result)
                else:
                    journal.add(key, {**result, "transcripts": args.transcripts})
            bar.update(len(batch))


def item_of(
    tokens: "TasteTokens",
    key: str,
    moments: Mapping[str, float | None] | None,
    around: Around,
    window_s: float,
) -> "ScoredItem":
    """Say which part of an utterance is scored."""
    from espnet_taste.pipeline.scoring import ScoredItem

    texts = [table[key] if table else "" for table in map(around.get, AROUND)]
    return ScoredItem(tokens, *texts, moments and moments[key], window_s)


def row_of(
    item: "ScoredItem", found: "ItemLikelihood", alone: "ItemLikelihood | None"
) -> dict[str, Any]:
    """Return the line of one utterance."""
    row: dict[str, Any] = {
        "text": item.tokens.text,
        **{name: text for name in AROUND if (text := getattr(item, name[5:]))},
        "scores": item.scores(found, alone),
        "num_tokens": found.tokens.size,
        "num_words": len(found.codes),
        "tokens": found.tokens.round(DIGITS).tolist(),
        "token_words": found.token_words.tolist(),
        "codes": found.codes.round(DIGITS).tolist(),
    }
    if found.latent_losses is not None:
        row["latent_losses"] = found.latent_losses.round(DIGITS).tolist()
    if item.from_s is not None and (why := item.why_not_localised()) is not None:
        row["not_localised"] = why
    return row


def write_results(folder: Path, outcomes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the lines of all utterances that have a score."""
    from espnet_taste.data.kaldi import atomic_write

    with atomic_write(folder / "likelihoods.jsonl") as stream:
        for row in outcomes.values():
            if "reason" not in row:
                stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False))
                stream.write("\n")


if __name__ == "__main__":
    sys.exit(main())
