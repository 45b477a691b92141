#!/usr/bin/env python3
"""Edit how words are spoken, in files of TASTE tokens.

Writes per edit the edited tokens (.safetensors), speech of the unedited and of the
edited tokens (.before.wav, .after.wav), and report.json: durations and pitch of every
word in both, and what the edit cannot promise. Words are numbered from 0.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command
from espnet_taste.bin.token_work import add_model


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_model(parser)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1986, help="of drawing the units")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no_pitch", action="store_true", help="do without pyworld")
    edits = parser.add_subparsers(dest="edit", required=True, metavar="EDIT")
    swap = edits.add_parser("swap", help="exchange words of two deliveries of a text")
    _add_files(swap, "first", "second")
    swap.add_argument("--words", type=int, nargs="+", required=True)
    transplant = edits.add_parser("transplant", help="speak a word like another one")
    _add_files(transplant, "target", "source")
    transplant.add_argument("--word", type=int, required=True)
    transplant.add_argument("--source_word", type=int, required=True)
    retime = edits.add_parser("retime", help="move words towards slower or faster ones")
    _add_files(retime, "tokens")
    span = ("FIRST", "STOP")
    retime.add_argument("--span", type=int, nargs=2, required=True, metavar=span)
    retime.add_argument("--factor", type=float, required=True)
    retime.add_argument("--examples", type=Path, nargs="+", help="tokens with times")
    replace = edits.add_parser("replace", help="another word, spoken the same way")
    _add_files(replace, "tokens")
    replace.add_argument("--word", type=int, required=True)
    replace.add_argument("--text", required=True)
    repeat = edits.add_parser("repeat", help="say a word several times over")
    _add_files(repeat, "tokens")
    repeat.add_argument("--word", type=int, required=True)
    repeat.add_argument("--times", type=int, required=True)
    between = edits.add_parser("interpolate", help="speak between two deliveries")
    _add_files(between, "first", "second")
    between.add_argument("--share", type=float, required=True, help="of the second")
    between.add_argument("--words", type=int, nargs="+", help="default: all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(edit_files, get_parser(), "edit", argv)


def edit_files(args: argparse.Namespace) -> None:
    """Edit, decode, measure and write."""
    from importlib.util import find_spec

    from espnet_taste.pipeline.edit_report import NEEDS_PYWORLD, harvest, report_edit
    from espnet_taste.pipeline.taste import TasteTokenizer

    if not args.no_pitch and find_spec("pyworld") is None:
        raise ValueError(f"{NEEDS_PYWORLD}, or use --no_pitch")
    tokenizer = TasteTokenizer.from_pretrained(args.model, device=args.device)
    reports = {}
    for name, tokens, edit in make_edits(args, tokenizer):
        before, after = tokenizer.decode([tokens, edit.tokens], seed=args.seed)
        pitch = None if args.no_pitch else harvest
        report = report_edit(tokens, edit, before, after, tokenizer, pitch=pitch)
        edit.tokens.save(args.output_dir / f"{name}.safetensors")
        _write_wav(args.output_dir / f"{name}.before.wav", before)
        _write_wav(args.output_dir / f"{name}.after.wav", after)
        reports[name] = report.facts()
        print(f"{name}: {edit.tokens.text}\n{report.to_text()}")
        print(*edit.caveats, sep="\n")
    _write_report(args, reports)


def make_edits(args: argparse.Namespace, tokenizer) -> list[tuple]:
    """Return name, unedited tokens and edit of everything that was asked for.

    Args:
        args: What ``get_parser`` reads.
        tokenizer: The ``TasteTokenizer`` that made the tokens.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If an edit cannot be made; it says why.
    """
    from espnet_taste.pipeline import delivery, editing
    from espnet_taste.pipeline.tokens import TasteTokens

    tokens = [TasteTokens.load(getattr(args, name)) for name in args.files]
    if args.edit == "swap":
        edits = editing.swap_words(*tokens, args.words)
        return list(zip(("first", "second"), tokens, edits, strict=True))
    if args.edit == "transplant":
        target, source = tokens
        edit = editing.transplant(target, args.word, source, args.source_word)
    elif args.edit == "replace":
        encode = tokenizer.encoder.encode_text
        edit = editing.replace_text(*tokens, args.word, args.text, encode)
    elif args.edit == "repeat":
        edit = editing.repeat_word(*tokens, args.word, args.times)
    elif args.edit == "interpolate":
        edit = delivery.interpolate(*tokens, args.share, tokenizer, args.words)
    else:
        examples = None
        if args.examples is not None:
            examples = [TasteTokens.load(path) for path in args.examples]
        edit = delivery.retime(*tokens, args.span, args.factor, tokenizer, examples)
    return [("edited", tokens[0], edit)]


def _add_files(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        parser.add_argument(name, type=Path, help="tokens, as TasteTokens.save wrote")
    parser.set_defaults(files=names)


def _write_wav(path: Path, speech) -> None:
    import soundfile

    from espnet_taste.data.kaldi import atomic_write

    with atomic_write(path, "wb") as stream:
        samples = speech.audio.clip(-1.0, 1.0)
        soundfile.write(stream, samples, speech.sample_rate_hz, format="WAV")


def _write_report(args: argparse.Namespace, reports: dict[str, dict]) -> None:
    from espnet_taste.data.kaldi import atomic_write

    asked = {key: _plain(value) for key, value in vars(args).items() if key != "files"}
    with atomic_write(args.output_dir / "report.json") as stream:
        facts = {"asked": asked, "edits": reports}
        json.dump(facts, stream, ensure_ascii=False, indent=2)
        stream.write("\n")


def _plain(value):
    """Return a value of the command line as JSON knows it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


if __name__ == "__main__":
    sys.exit(main())
