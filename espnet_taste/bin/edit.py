#!/usr/bin/env python3
"""Edit how words are spoken: TASTE tokens to TASTE tokens.

Many edits: --tokens tokens.jsonl (espnet_taste.bin.encode) with --edit_list, one edit a
line (docs/edits.md). Writes tokens.jsonl of the edited utterances; edits.jsonl with
durations and pitch of every word before and after, and what each edit cannot promise;
excluded.jsonl and summary.json of the edits that cannot be made. A killed run goes on
where it was; espnet_taste.bin.decode makes the result audible, or --write_audio true.

One edit: name it and its utterances, which are ids in --tokens, or else files that
TasteTokens.save wrote. Writes the edited tokens (.safetensors), speech of the unedited
and of the edited ones (.before.wav, .after.wav), and report.json.

Words are numbered from 0.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import parse_bool, run_command
from espnet_taste.bin.decode import add_decode_options
from espnet_taste.bin.parallel import add_job_options, device_of
from espnet_taste.bin.token_work import (
    add_dtype,
    add_max_excluded,
    add_model,
    add_whisper,
    choices_of,
)

if TYPE_CHECKING:
    from espnet_taste.pipeline.edit_list import EditOrder
    from espnet_taste.pipeline.speech import Speech
    from espnet_taste.pipeline.tokens import TasteTokens

# Options that one edit would pass over in silence.
LIST_ONLY = ("key_file", "batch_words", "max_excluded", "measure", "write_audio", "nj")


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model(parser)
    parser.add_argument("--tokens", type=Path, help="tokens.jsonl with the utterances")
    parser.add_argument("--edit_list", type=Path, help="JSON lines, one edit a line")
    parser.add_argument("--key_file", type=Path, help="subset of edits; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--measure",
        type=parse_bool,
        default=True,
        help="false: make the edits of a list without measuring them, nor decoding "
        "them unless --write_audio true",
    )
    parser.add_argument("--no_pitch", action="store_true", help="do without pyworld")
    parser.add_argument(
        "--write_audio",
        type=parse_bool,
        default=False,
        help="true: also write audio and wav.scp, and those of before in before/",
    )
    add_dtype(parser)
    add_whisper(parser)
    add_max_excluded(parser, 0.0, "edited")
    add_decode_options(parser)
    add_job_options(parser)
    add_edits(parser)
    return parser


def add_edits(parser: argparse.ArgumentParser) -> None:
    """Add a command for every edit."""
    edits = parser.add_subparsers(dest="edit", metavar="EDIT")
    swap = edits.add_parser("swap", help="exchange words of two deliveries of a text")
    _add_utterances(swap, "FIRST", "SECOND")
    swap.add_argument("--words", type=int, nargs="+", required=True)
    transplant = edits.add_parser("transplant", help="speak a word like another one")
    _add_utterances(transplant, "TARGET", "DONOR")
    transplant.add_argument("--word", type=int, required=True)
    transplant.add_argument("--donor_word", "--source_word", type=int, required=True)
    retime = edits.add_parser("retime", help="move words towards slower or faster ones")
    _add_utterances(retime, "UTTERANCE")
    span = ("FIRST", "STOP")
    retime.add_argument("--span", type=int, nargs=2, required=True, metavar=span)
    retime.add_argument("--factor", type=float, required=True)
    retime.add_argument("--examples", nargs="+", help="utterances with word times")
    replace = edits.add_parser("replace", help="another word, spoken the same way")
    _add_utterances(replace, "UTTERANCE")
    replace.add_argument("--word", type=int, required=True)
    replace.add_argument("--text", required=True)
    repeat = edits.add_parser("repeat", help="say a word several times over")
    _add_utterances(repeat, "UTTERANCE")
    repeat.add_argument("--word", type=int, required=True)
    repeat.add_argument("--times", type=int, required=True)
    between = edits.add_parser("interpolate", help="speak between two deliveries")
    _add_utterances(between, "FIRST", "SECOND")
    between.add_argument("--share", type=float, required=True, help="of the second")
    between.add_argument("--words", type=int, nargs="+", help="default: all")


def _add_utterances(parser: argparse.ArgumentParser, *names: str) -> None:
    for dest, name in zip(("utterance", "donor"), names):
        parser.add_argument(dest, metavar=name, help="id in --tokens, or else a file")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(edit, get_parser(), "edit", argv)


def edit(args: argparse.Namespace) -> None:
    """Make one edit, or those of a list."""
    if (args.edit is None) == (args.edit_list is None):
        raise ValueError("give either --edit_list or one edit by name, see --help")
    is_measured = args.measure and not args.no_pitch
    if is_measured:
        require_pyworld()
    if args.edit_list is None:
        refuse_list_options(args)
        edit_one(args)
    elif args.tokens is None:
        raise ValueError("--edit_list needs --tokens, the file of the utterances")
    else:
        from espnet_taste.bin.edit_many import edit_all

        edit_all(args)


def require_pyworld() -> None:
    """Tell that pitch cannot be measured before anything is done.

    Raises:
        ValueError: If pyworld is absent.
    """
    from importlib.util import find_spec

    from espnet_taste.pipeline.edit_report import NEEDS_PYWORLD

    if find_spec("pyworld") is None:
        raise ValueError(f"{NEEDS_PYWORLD}, or use --no_pitch")


def refuse_list_options(args: argparse.Namespace) -> None:
    """Refuse options that one edit does not heed."""
    defaults = get_parser()
    for name in LIST_ONLY:
        if getattr(args, name) != defaults.get_default(name):
            raise ValueError(f"--{name} goes with --edit_list, not with one edit")


def edit_one(args: argparse.Namespace) -> None:
    """Edit, decode, measure and write."""
    from espnet_taste.pipeline.edit_list import make_edit
    from espnet_taste.pipeline.edit_report import harvest, report_edit
    from espnet_taste.pipeline.taste import TasteTokenizer

    orders = orders_of(args)
    utterances = open_utterances(args, next(iter(orders.values())).utterances)
    tokenizer = TasteTokenizer.from_pretrained(
        args.model,
        device=device_of(args, 0),
        dtype=args.dtype,
        **choices_of(args),
    )
    reports = {}
    for name, order in orders.items():
        tokens, edit = make_edit(order, utterances, tokenizer)
        before, after = tokenizer.decode([tokens, edit.tokens], seed=args.seed)
        pitch = None if args.no_pitch else harvest
        report = report_edit(tokens, edit, before, after, tokenizer, pitch=pitch)
        edit.tokens.save(args.output_dir / f"{name}.safetensors")
        _write_wav(args.output_dir / f"{name}.before.wav", before)
        _write_wav(args.output_dir / f"{name}.after.wav", after)
        reports[name] = report.facts()
        print(f"{name}: {edit.tokens.text}\n{report.to_text()}")
        print(*edit.caveats, sep="\n")
    _write_report(args, orders, reports)


def orders_of(args: argparse.Namespace) -> "dict[str, EditOrder]":
    """Return what is asked for; a swap is two edits, one of either utterance."""
    from espnet_taste.pipeline.edit_list import FORMS, EditOrder

    form = FORMS[args.edit]
    given = {name: getattr(args, name) for name in (*form.needed, *form.optional)}
    given = {name: value for name, value in given.items() if value is not None}
    first = EditOrder(args.edit, args.utterance, given)
    if args.edit != "swap":
        return {"edited": first}
    back = EditOrder(args.edit, args.donor, {**given, "donor": args.utterance})
    return {"first": first, "second": back}


def open_utterances(
    args: argparse.Namespace, names: Sequence[str]
) -> "Mapping[str, TasteTokens]":
    """Read the utterances of an edit, from --tokens or a file each.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If an utterance is not in the file, or a file holds no tokens.
    """
    from espnet_taste.pipeline.interchange import TokenFile
    from espnet_taste.pipeline.tokens import TasteTokens

    if args.tokens is None:
        return {name: TasteTokens.load(name) for name in names}
    tokens = TokenFile(args.tokens)
    if unknown := [name for name in names if name not in tokens]:
        raise ValueError(f"no utterance '{unknown[0]}' in {args.tokens}; encode it")
    return tokens


def _write_wav(path: Path, speech: "Speech") -> None:
    import soundfile

    from espnet_taste.data.kaldi import atomic_write

    with atomic_write(path, "wb") as stream:
        samples = speech.audio.clip(-1.0, 1.0)
        soundfile.write(stream, samples, speech.sample_rate_hz, format="WAV")


def _write_report(
    args: argparse.Namespace,
    orders: "Mapping[str, EditOrder]",
    reports: Mapping[str, dict],
) -> None:
    from espnet_taste.data.kaldi import atomic_write

    options = {name: getattr(args, name) for name in ("model", "dtype", "seed")}
    tokens = None if args.tokens is None else str(args.tokens)
    asked = {**options, "tokens": tokens, **next(iter(orders.values())).asked}
    with atomic_write(args.output_dir / "report.json") as stream:
        facts = {"asked": asked, "edits": reports}
        json.dump(facts, stream, ensure_ascii=False, indent=2)
        stream.write("\n")


if __name__ == "__main__":
    sys.exit(main())
