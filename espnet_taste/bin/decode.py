#!/usr/bin/env python3
"""Decode TASTE tokens (``tokens.jsonl``) to a folder of audio.

Writes audio, ``wav.scp`` and ``report.jsonl`` (how the decoder stopped); what cannot
be decoded is named with its reason in ``excluded.jsonl`` and counted in
``summary.json``. A killed run goes on where it was.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command
from espnet_taste.bin.parallel import add_job_options, device_of, in_processes
from espnet_taste.bin.token_work import (
    add_dtype,
    add_max_excluded,
    add_whisper,
    choices_of,
    deciding,
    first_readable,
    naming_full_gpu,
    open_tokens,
    spoil_no_other,
    tokens_parser,
)
from espnet_taste.data.exclusions import ExclusionError, Journal

if TYPE_CHECKING:
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.speech import Speech
    from espnet_taste.pipeline.taste import TasteTokenizer

JOURNALS = ".parts"
NO_VOCODER = (
    "{} has no vocoder, so that nothing can be decoded; a converted checkpoint gets "
    "one by convert --voice_generator"
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = tokens_parser(__doc__)
    add_whisper(parser)
    add_dtype(parser)
    add_max_excluded(parser, 0.2)
    add_decode_options(parser)
    add_job_options(parser)
    return parser


def add_decode_options(parser: argparse.ArgumentParser) -> None:
    """Add how audio is drawn and how much at once."""
    parser.add_argument(
        "--batch_words", type=int, default=200, help="words at once, padded"
    )
    parser.add_argument("--seed", type=int, default=1986)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(decode, get_parser(), "decode", argv)


def decode(args: argparse.Namespace) -> None:
    """Decode every utterance that is not done yet, then write the tables."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.exclusions import check_share, summary_table, write_outcome

    tokens, keys = open_tokens(args)
    check_options(args)
    output = AudioOutput(args.output_dir)
    done = find_decoded(output, tokens, keys) | excluded_rows(args, tokens).keys()
    in_processes(decode_job, args, [key for key in keys if key not in done])
    rows = excluded_rows(args, tokens)
    output.close([key for key in keys if key not in rows])
    outcomes = {key: rows.get(key, {}) for key in keys}
    summary = write_outcome(args.output_dir, outcomes, {}, args.max_excluded)
    print(f"{args.output_dir}\n{summary_table(summary)}")
    check_share(summary, args.output_dir)


def find_decoded(
    output: "AudioOutput", tokens: "TokenFile", keys: Sequence[str]
) -> set[str]:
    """Return the utterances that earlier runs decoded from the tokens of today.

    Of other tokens of the same id, as of a second transcript, the audio is made anew.
    """
    done = output.done.intersection(keys)
    # Audio of older versions does not say what it was made of.
    made_of = {key: output.facts(key).get("tokens_sha256") for key in done}
    stale = {
        key
        for key, digest in made_of.items()
        if digest is not None and digest != tokens.digest(key)
    }
    if stale:
        logging.warning(
            f"{tokens.path}: {len(stale)} utterances have other tokens than when they "
            f"were decoded, e.g. '{min(stale)}'; they are decoded again"
        )
    return done - stale


def excluded_rows(args: argparse.Namespace, tokens: "TokenFile") -> dict[str, dict]:
    """Return what the jobs of all runs so far left out of the tokens of today."""
    rows: dict[str, dict] = {}
    for path in sorted((args.output_dir / JOURNALS).glob("*.journal")):
        for key, row in Journal(path, settings_of(args)).rows.items():
            # Older versions did not note what they left out.
            digest = row.pop("tokens_sha256", None)
            if key in tokens and digest in (None, tokens.digest(key)):
                rows[key] = row
    return rows


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    """Return the options that decide the result."""
    settings = deciding(args, ("model", "tokens", "dtype", "seed"))
    return settings | choices_of(args)


def decode_job(args: argparse.Namespace, keys: list[str], job: int) -> None:
    """Decode a part of the utterances in this process."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.batches import in_batches_by_cost
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.taste import TasteTokenizer

    path = args.output_dir / JOURNALS / f"{job}.journal"
    journal = Journal(path, settings_of(args))
    tokenizer = TasteTokenizer.from_pretrained(
        args.model,
        device=device_of(args, job),
        dtype=args.dtype,
        **choices_of(args),
    )
    require_vocoder(tokenizer, args.model)
    tokens = TokenFile(args.tokens)
    refuse_foreign(tokens, keys, tokenizer)
    output = AudioOutput(args.output_dir)
    bar = progress(None, f"decode {job + 1}", total=len(keys))
    cost = {key: place.num_words for key, place in tokens.places.items()}
    with bar:
        for batch in in_batches_by_cost(keys, cost.__getitem__, args.batch_words):
            results = spoil_no_other(
                batch,
                lambda part: decode_batch(tokenizer, tokens, part, args),
                "not_decoded",
            )
            for key, result in zip(batch, results, strict=True):
                made_of = {"tokens_sha256": tokens.digest(key)}
                try:
                    if isinstance(result, ExclusionError):
                        raise result
                    facts = {**result.facts, **made_of}
                    output.write(key, result.audio, result.sample_rate_hz, facts)
                except ValueError as error:
                    reason = getattr(error, "reason", "not_decoded")
                    detail = getattr(error, "detail", str(error))
                    row = {"reason": reason, "detail": detail, **made_of}
                    journal.add(key, row)
            bar.update(len(batch))


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that make no sense.

    Raises:
        ValueError: It names the option.
    """
    if args.batch_words < 1:
        raise ValueError(f"--batch_words must be at least 1, got {args.batch_words}")


def require_vocoder(tokenizer: "TasteTokenizer", model: str) -> None:
    """Stop before any work if no audio can be made.

    Raises:
        ValueError: If the model has no vocoder.
    """
    if tokenizer.synthesize is None:
        raise ValueError(NO_VOCODER.format(model))


def refuse_foreign(
    tokens: "TokenFile", keys: Sequence[str], tokenizer: "TasteTokenizer"
) -> None:
    """Stop before any work if the first utterance is of another tokenizer.

    Raises:
        ValueError: It names line and utterance.
    """
    from espnet_taste.pipeline.tokens import require_same_tokenizer

    first = first_readable(tokens, keys)
    if first is None:
        return
    try:
        require_same_tokenizer(tokens[first], tokenizer.models, "decode")
    except ValueError as error:
        line = tokens.places[first].line
        raise ValueError(f"{tokens.path}:{line}: '{first}': {error}") from error


def decode_batch(
    tokenizer: "TasteTokenizer",
    tokens: "TokenFile",
    keys: Sequence[str],
    args: argparse.Namespace,
) -> "list[Speech]":
    """Decode utterances at once.

    Raises:
        OSError: If a GPU cannot hold the batch.
        ValueError: If one of them cannot be decoded.
    """
    rows = [tokens[key] for key in keys]
    with naming_full_gpu(args, "batch_words", keys):
        return tokenizer.decode(rows, seed=args.seed, batch_size=len(rows))


if __name__ == "__main__":
    sys.exit(main())
