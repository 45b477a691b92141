#!/usr/bin/env python3
"""Cut recordings at the word end nearest to some seconds: prompts that end there.

Reads a data folder and its tokens (espnet_taste.bin.encode), which know when words were
said, and writes a data folder whose ``segments`` end with the prompt. Encode that one
again and continue it: the codes of a whole recording, and a transcript made of it, know
how it goes on, since Whisper's encoder sees all that it is given.

``text`` is written if the data folder has one. What cannot be cut is counted in
``excluded.jsonl``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command
from espnet_taste.bin.token_work import add_max_excluded

if TYPE_CHECKING:
    from espnet_taste.data.corpora import Utterance
    from espnet_taste.data.data_dir import DataDir
    from espnet_taste.pipeline.tokens import TasteTokens


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.jsonl of it")
    parser.add_argument("--prompt_s", type=float, default=3.0, help="seconds")
    parser.add_argument("--output_dir", type=Path, required=True)
    add_max_excluded(parser, 0.0, "cut")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(cut_all, get_parser(), "cut_prompts", argv)


def cut_all(args: argparse.Namespace) -> None:
    """Write the data folder of the prompts."""
    from espnet_taste.data.corpora import check_owner, write_sets
    from espnet_taste.data.data_dir import read_data_dir
    from espnet_taste.data.exclusions import (
        ExclusionError,
        check_share,
        summary_table,
        write_outcome,
    )
    from espnet_taste.pipeline.interchange import TokenFile

    if not args.prompt_s > 0:
        raise ValueError(f"--prompt_s must be above 0, got {args.prompt_s:g}")
    if args.output_dir.resolve() == args.data_dir.resolve():
        raise ValueError(
            f"--output_dir {args.output_dir} is --data_dir; choose another"
        )
    folder, name = args.output_dir.absolute(), f"prompts of {args.data_dir}"
    check_owner(folder, name)  # before its counts are written over
    data, tokens = read_data_dir(args.data_dir), TokenFile(args.tokens)
    cut, outcomes = [], {}
    for key in data.utterances:
        try:
            if key not in tokens:
                raise ExclusionError("no_tokens", f"not in {args.tokens}")
            cut.append(cut_utterance(data, key, tokens[key], args.prompt_s))
            outcomes[key] = {"key": key}
        except ExclusionError as error:
            outcomes[key] = {"key": key, "reason": error.reason, "detail": error.detail}
    summary = write_outcome(args.output_dir, outcomes, {}, args.max_excluded)
    print(summary_table(summary))
    check_share(summary, args.output_dir)
    write_sets(folder.parent, {folder.name: cut}, name)


def cut_utterance(
    data: "DataDir", key: str, tokens: "TasteTokens", prompt_s: float
) -> "Utterance":
    """Return an utterance up to the word end nearest to ``prompt_s``.

    Raises:
        ExclusionError: If it has no audio, or it is not known when words were said.
    """
    from espnet_taste.data.corpora import Utterance
    from espnet_taste.data.exclusions import ExclusionError

    if tokens.times is None or len(tokens) == 0:
        raise ExclusionError("no_times", "it is not known when words were said")
    recording, start_s = key, 0.0
    if data.segments is not None and key in data.segments:
        recording, start_s, _ = data.segments[key]
    audio = data.place_of(recording)
    if audio is None:
        raise ExclusionError("no_audio", f"'{recording}' is not in wav.scp")
    prompt = tokens.up_to(prompt_s)
    return Utterance(
        key=key,
        speaker=(data.utt2spk or {}).get(key),
        audio=audio,
        text=None if data.text is None else prompt.text.strip(),
        span_s=(start_s, start_s + float(prompt.times[-1, 1])),
        recording=recording,
    )


if __name__ == "__main__":
    sys.exit(main())
