"""The edits of a list, over a file of tokens: what ``edit --edit_list`` does."""

import argparse
import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espnet_taste.bin.parallel import device_of, in_processes
from espnet_taste.bin.token_work import (
    choices_of,
    deciding,
    naming_full_gpu,
    refuse_changed,
    spoil_no_other,
)
from espnet_taste.data.exclusions import ExclusionError

if TYPE_CHECKING:
    from espnet_taste.pipeline.edit_list import EditLine
    from espnet_taste.pipeline.edit_report import EditReport
    from espnet_taste.pipeline.edit_store import EditPart, EditStore
    from espnet_taste.pipeline.editing import Edit
    from espnet_taste.pipeline.speech import Speech
    from espnet_taste.pipeline.taste import TasteTokenizer
    from espnet_taste.pipeline.tokens import TasteTokens

# Options that decide the result; of the list, every line is compared on its own.
SETTINGS = ("model", "tokens", "dtype", "seed", "measure", "no_pitch", "write_audio")
NOT_MEASURED = "Nothing was measured (--measure false)."
BEFORE = "before"  # folder of the unedited audio


def edit_all(args: argparse.Namespace) -> None:
    """Make every edit of the list that is not made yet, then join the parts."""
    from espnet_taste.data.data_dir import select_keys
    from espnet_taste.data.exclusions import check_share, summary_table
    from espnet_taste.pipeline.edit_list import read_edit_list

    if args.batch_words < 1:
        raise ValueError(f"--batch_words must be at least 1, got {args.batch_words}")
    refuse_overwriting(args)
    lines = read_edit_list(args.edit_list)
    keys = select_keys(lines, args.key_file)
    store = open_store(args)
    left = store.begin(lines, keys)
    made_of = digests_of(args, lines, keys)
    refuse_changed(args.output_dir, args.tokens, made_of, set(keys).difference(left))
    in_processes(edit_job, args, check_lines(args, lines, left, store))
    summary = store.finish(keys, args.max_excluded)
    if args.write_audio:
        close_audio(args, store)
    print(f"{store.tokens}\n{store.table}\n{summary_table(summary)}")
    check_share(summary, args.output_dir)


def refuse_overwriting(args: argparse.Namespace) -> None:
    """Refuse an output folder in which an input would be replaced.

    Raises:
        ValueError: It names the file.
    """
    for path, name in ((args.tokens, "tokens.jsonl"), (args.edit_list, "edits.jsonl")):
        if path.resolve() == (args.output_dir / name).resolve():
            raise ValueError(f"{path} would be replaced; choose another --output_dir")


def open_store(args: argparse.Namespace) -> "EditStore":
    """Open the output folder with the options that decide its content."""
    from espnet_taste.pipeline.edit_store import EditStore

    return EditStore(args.output_dir, deciding(args, SETTINGS) | choices_of(args))


def digests_of(
    args: argparse.Namespace, lines: "dict[str, EditLine]", keys: Sequence[str]
) -> dict[str, str]:
    """Return what the tokens that an edit reads are known by, of those that can be."""
    from espnet_taste.pipeline.edit_list import parse_line
    from espnet_taste.pipeline.interchange import TokenFile

    tokens, digests = TokenFile(args.tokens), {}
    for key in keys:
        with contextlib.suppress(ExclusionError):  # counted where edits are made
            order = parse_line(lines[key], tokens, str(args.tokens))
            digests[key] = " ".join(map(tokens.digest, order.utterances))
    return digests


def check_lines(
    args: argparse.Namespace,
    lines: "dict[str, EditLine]",
    keys: Sequence[str],
    store: "EditStore",
) -> list[str]:
    """Note the lines that no model is needed to refuse; return the others' ids."""
    from espnet_taste.pipeline.edit_list import parse_line
    from espnet_taste.pipeline.interchange import TokenFile

    tokens, part = TokenFile(args.tokens), store.part(0)
    good = []
    for key in keys:
        try:
            parse_line(lines[key], tokens, str(args.tokens))
        except ExclusionError as error:
            leave_out(part, key, error)
        else:
            good.append(key)
    return good


def leave_out(part: "EditPart", key: str, error: ExclusionError) -> None:
    """Count an edit as not made, and say so at once."""
    logging.warning(f"'{key}' is left out: {error}")
    part.exclude(key, error)


def close_audio(args: argparse.Namespace, store: "EditStore") -> None:
    """Write the tables of the audio before and after."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.pipeline.interchange import TokenFile

    keys = list(TokenFile(store.tokens))
    for folder in (args.output_dir, args.output_dir / BEFORE):
        AudioOutput(folder).close(keys)


@dataclass(frozen=True)
class Made:
    """An edit that was made."""

    line: "EditLine"
    tokens: "TasteTokens"  # unedited
    edit: "Edit"

    @property
    def cost(self) -> float:
        """Words to decode, padded."""
        return 2 * max(len(self.tokens), len(self.edit.tokens))


@dataclass(frozen=True)
class Heard:
    """What came of an edit; None where nothing was decoded or measured."""

    before: "Speech | None" = None
    after: "Speech | None" = None
    report: "EditReport | None" = None


def edit_job(args: argparse.Namespace, keys: list[str], job: int) -> None:
    """Make a part of the edits in this process."""
    from espnet_taste.data.batches import in_batches_by_cost
    from espnet_taste.pipeline.taste import TasteTokenizer

    # Before the model, which takes long: no other job writes yet.
    store = open_store(args)
    tokenizer = TasteTokenizer.from_pretrained(
        args.model,
        device=device_of(args, job),
        dtype=args.dtype,
        **choices_of(args),
    )
    store.require_same_tokenizer(tokenizer.models)
    if (args.measure or args.write_audio) and tokenizer.synthesize is None:
        raise ValueError(
            f"{args.model} has no vocoder to hear edits with; use --measure false"
        )
    part = store.part(job)
    made = make_edits(args, keys, tokenizer, part, f"edit {job + 1}")
    for batch in in_batches_by_cost(made, lambda item: item.cost, args.batch_words):
        results = spoil_no_other(
            batch, lambda items: hear(args, tokenizer, items), "not_decoded"
        )
        write_batch(args, part, batch, results)


def make_edits(
    args: argparse.Namespace,
    keys: Sequence[str],
    tokenizer: "TasteTokenizer",
    part: "EditPart",
    name: str,
) -> Iterator[Made]:
    """Yield the edits that can be made and note those that cannot."""
    from espnet_taste.bin.progress import progress
    from espnet_taste.pipeline.edit_list import make_edit, parse_line, read_edit_list
    from espnet_taste.pipeline.interchange import TokenFile

    lines, tokens = read_edit_list(args.edit_list), TokenFile(args.tokens)
    for key in progress(keys, name):
        line = lines[key]
        try:
            order = parse_line(line, tokens, str(args.tokens))
            made = Made(line, *make_edit(order, tokens, tokenizer))
        except ExclusionError as error:
            leave_out(part, key, error)
        except ValueError as error:
            leave_out(part, key, line.excluded("not_edited", str(error)))
        else:
            yield made


def hear(
    args: argparse.Namespace, tokenizer: "TasteTokenizer", batch: Sequence[Made]
) -> list[Heard]:
    """Decode edits and what they were at once, and measure both.

    Raises:
        OSError: If a GPU cannot hold the batch.
        ValueError: If one of them cannot be decoded.
    """
    from espnet_taste.pipeline.edit_report import harvest, report_edit

    if not (args.measure or args.write_audio):
        return [Heard()] * len(batch)
    # Lists hold many edits of one utterance: it is decoded once a batch.
    unedited = {item.line.asked["utterance"]: item.tokens for item in batch}
    rows = [*unedited.values(), *(item.edit.tokens for item in batch)]
    with naming_full_gpu(args, "batch_words", [item.line.key for item in batch]):
        speech = tokenizer.decode(rows, seed=args.seed, batch_size=len(rows))
    before = dict(zip(unedited, speech[: len(unedited)], strict=True))
    heard = []
    for item, after in zip(batch, speech[len(unedited) :], strict=True):
        first, report = before[item.line.asked["utterance"]], None
        if args.measure:
            pitch = None if args.no_pitch else harvest
            report = report_edit(
                item.tokens, item.edit, first, after, tokenizer, pitch=pitch
            )
        heard.append(Heard(first, after, report))
    return heard


def write_batch(
    args: argparse.Namespace,
    part: "EditPart",
    batch: Sequence[Made],
    results: Sequence[Heard | ExclusionError],
) -> None:
    """Write audio, then tokens with their reports, which make an edit done."""
    rows = {}
    for item, result in zip(batch, results, strict=True):
        key = item.line.key
        if isinstance(result, ExclusionError):
            error = item.line.excluded(result.reason, result.detail)
            leave_out(part, key, error)
            continue
        try:
            write_audio(args, key, result)
        except ValueError as error:  # samples that are no number
            leave_out(part, key, item.line.excluded("not_decoded", str(error)))
            continue
        rows[key] = (item.edit.tokens, facts_of(item, result.report))
    part.add_edits(rows)


def write_audio(args: argparse.Namespace, key: str, heard: Heard) -> None:
    """Write what an edit sounds like, and what it was, if that is wanted."""
    from espnet_taste.data.audio_output import AudioOutput

    if not args.write_audio:
        return
    for folder, speech in (
        (args.output_dir / BEFORE, heard.before),
        (args.output_dir, heard.after),
    ):
        AudioOutput(folder).write(
            key, speech.audio, speech.sample_rate_hz, speech.facts
        )


def facts_of(item: Made, report: "EditReport | None") -> dict[str, Any]:
    """Return what the table says about an edit."""
    facts: dict[str, Any] = {
        "summary": None,
        "words": None,
        "caveats": list(item.edit.caveats),
        "notes": [NOT_MEASURED],
    }
    if report is not None:
        facts = report.facts()
    return {"asked": item.line.asked, "changed": list(item.edit.changed), **facts}
