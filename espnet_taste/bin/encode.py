#!/usr/bin/env python3
"""Encode speech to TASTE tokens: words, their times and codes.

Writes ``tokens.jsonl``, one line an utterance (``docs/tokens.md``); ``excluded.jsonl``
names every utterance left out with its reason, ``summary.json`` holds the counts. A
killed run goes on where it was.
"""

import argparse
import hashlib
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from espnet_taste.bin.command import parse_bool, run_command
from espnet_taste.bin.parallel import add_job_options, device_of, in_processes
from espnet_taste.bin.token_work import (
    add_dtype,
    add_encoding,
    add_max_excluded,
    add_model,
    choices_of,
    deciding,
    naming_full_gpu,
    spoil_no_other,
)
from espnet_taste.data.exclusions import ExclusionError, Journal

if TYPE_CHECKING:
    from espnet_taste.data.data_dir import DataDir
    from espnet_taste.data.espnet_asr import EspnetAsr
    from espnet_taste.pipeline.taste import TasteTokenizer
    from espnet_taste.pipeline.token_store import TokenPart, TokenStore
    from espnet_taste.pipeline.tokens import TasteTokens

logger = logging.getLogger(__name__)

# Options that decide the result; the others may change when a killed run goes on.
SETTINGS = (
    "model",
    "wav_scp",
    "data_dir",
    "text",
    "transcripts",
    "asr_config",
    "asr_model_file",
    "asr_tag",
    "dtype",
    "word_times",
    "allow_pipes",
)


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_input_options(parser)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--word_times",
        type=parse_bool,
        default=True,
        help="false: do not find when every word was spoken, which is faster",
    )
    return parser


def add_input_options(parser: argparse.ArgumentParser) -> None:
    """Add what is encoded, by which model and how."""
    add_model(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wav_scp", type=Path, help="table of audio")
    source.add_argument(
        "--data_dir", type=Path, help="Kaldi-style folder: wav.scp, segments, text"
    )
    parser.add_argument("--text", type=Path, help="transcripts; default: --data_dir's")
    parser.add_argument(
        "--transcripts",
        choices=["auto", "asr"],
        default="auto",
        help="auto: a recogniser writes them if there is no text; asr: always",
    )
    parser.add_argument(
        "--asr_config", type=Path, help="ESPnet recogniser that writes instead"
    )
    parser.add_argument("--asr_model_file", type=Path)
    parser.add_argument("--asr_tag", help="model-zoo tag instead of the two files")
    parser.add_argument(
        "--asr_beam",
        type=int,
        help="its beam; default: decode CTC greedily, if it has CTC",
    )
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument(
        "--batch_s", type=float, default=60.0, help="seconds of audio at once, padded"
    )
    add_encoding(parser)
    add_dtype(parser)
    add_max_excluded(parser, 0.2)
    parser.add_argument(
        "--allow_pipes",
        type=parse_bool,
        default=False,
        help="run the commands in wav.scp; only for tables you trust",
    )
    add_job_options(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(encode, get_parser(), "encode", argv)


def encode(args: argparse.Namespace) -> None:
    """Encode every utterance that is not done yet, then join the parts."""
    from espnet_taste.data.data_dir import select_keys
    from espnet_taste.data.exclusions import check_share, summary_table

    data = open_data(args)
    keys = select_keys(data.utterances, args.key_file)
    if not keys:
        raise ValueError(f"{args.data_dir or args.wav_scp}: no utterances")
    if not args.batch_s > 0:
        raise ValueError(f"--batch_s must be above 0, got {args.batch_s:g}")
    store = open_store(args)
    refuse_other_texts(store, data.text or {})
    done = what_is_done(store, data, keys)
    _tell_of_given_texts(args, sum(key in (data.text or {}) for key in keys))
    in_processes(encode_job, args, [key for key in keys if key not in done])
    summary = store.finish(keys, args.max_excluded)
    print(f"{store.tokens}\n{summary_table(summary)}")
    check_share(summary, args.output_dir)


def refuse_other_texts(store: "TokenStore", texts: Mapping[str, str]) -> None:
    """Refuse to take what was encoded with one transcript for another's tokens.

    Raises:
        ValueError: It names an utterance. Blanks do not count: words are cut anew.
    """
    changed = [
        key
        for key, words in store.words()
        if key in texts and "".join(words) != "".join(texts[key].split())
    ]
    if changed:
        raise ValueError(
            f"{len(changed)} utterances have another text than when they were encoded, "
            f"e.g. '{changed[0]}'; remove {store.folder} or choose another --output_dir"
        )


def what_is_done(store: "TokenStore", data: "DataDir", keys: Sequence[str]) -> set[str]:
    """Return what need not be encoded, and note of what everything is made.

    What was left out is tried again if its audio or its text is another now.

    Raises:
        ValueError: If something was encoded of other audio, or of a text that is gone;
            it names an utterance. What older versions encoded tells nothing.
    """
    noted = Journal(store.folder / ".made_of.jsonl", {})
    today = {key: made_of(data, key) for key in keys}
    before = {key: noted.rows.get(key, {}) for key in keys}
    changed = [
        key
        for key in store.written.intersection(keys)
        if before[key].get("audio", today[key]["audio"]) != today[key]["audio"]
        or (before[key].get("text") and not today[key]["text"])
    ]
    if changed:
        raise ValueError(
            f"{len(changed)} utterances are other audio than when they were encoded, "
            f"or have no text any more, e.g. '{min(changed)}'; remove {store.folder} "
            "or choose another --output_dir"
        )
    store.forget_excluded(
        {
            key
            for key in store.excluded.keys() & today.keys()
            if {**today[key], **before[key]} != {**before[key], **today[key]}
            or (store.excluded[key]["reason"] == "no_transcript" and today[key]["text"])
        }
    )
    changed = [key for key in keys if before[key] != {"key": key, **today[key]}]
    noted.add_all({key: today[key] for key in changed})
    return store.done


def made_of(data: "DataDir", key: str) -> dict[str, str]:
    """Return which part of which recording it is, and a digest of its text."""
    recording, *span_s = (data.segments or {}).get(key, (key,))
    text = (data.text or {}).get(key, "")
    digest = hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""
    return {"audio": json.dumps([data.wav.get(recording), *span_s]), "text": digest}


def _tell_of_given_texts(args: argparse.Namespace, number: int) -> None:
    """Say for how many utterances a recogniser that was asked for writes nothing."""
    if number and (args.asr_tag or args.asr_config):
        logger.warning(
            f"{number} utterances have a transcript, which is used; with --transcripts "
            "asr the recogniser writes them"
        )


def open_data(args: argparse.Namespace) -> "DataDir":
    """Read the tables.

    Raises:
        FileNotFoundError: If one that was named is absent.
        ValueError: If a transcript is to be both read and written.
    """
    from espnet_taste.data.data_dir import DataDir, read_data_dir
    from espnet_taste.data.kaldi import read_table

    if args.transcripts == "asr" and args.text is not None:
        raise ValueError("--text and --transcripts asr exclude each other")
    if args.data_dir is not None:
        data = read_data_dir(args.data_dir)
    else:
        wav = read_table(args.wav_scp)
        data = DataDir(args.wav_scp.parent, wav, None, None, None)
    text = data.text if args.text is None else read_table(args.text)
    if args.transcripts == "asr":
        text = None
    return DataDir(data.folder, data.wav, data.segments, text, data.utt2spk)


def open_store(args: argparse.Namespace) -> "TokenStore":
    """Open the output folder with the options that decide its content."""
    from espnet_taste.pipeline.token_store import TokenStore

    settings = deciding(args, SETTINGS, models=("model", "asr_model_file"))
    settings |= choices_of(args) | _beam_of(args, "asr_beam")
    return TokenStore(args.output_dir, settings)


@dataclass(frozen=True)
class Recording:
    """An utterance to encode."""

    key: str
    wave: np.ndarray  # (N,) float32, 16 kHz
    text: str | None  # None: Whisper writes it

    @property
    def cost(self) -> float:
        """Seconds of audio."""
        from espnet_taste.types import SAMPLE_RATE_HZ

        return len(self.wave) / SAMPLE_RATE_HZ


def encode_job(args: argparse.Namespace, keys: list[str], job: int) -> None:
    """Encode a part of the utterances in this process."""
    from espnet_taste.data.batches import in_batches_by_cost
    from espnet_taste.pipeline.taste import TasteTokenizer

    # At once: opening cuts off what a killed job left of a line, and later another job
    # may be in the middle of one.
    store = open_store(args)
    device = device_of(args, job)
    tokenizer = TasteTokenizer.from_pretrained(
        args.model,
        device=device,
        dtype=args.dtype,
        transcriber=open_transcriber(args, device),
        **choices_of(args),
    )
    store.require_same_tokenizer(tokenizer.models)
    part = store.part(job)
    recordings = read_recordings(args, keys, part, f"encode {job + 1}")
    for batch in in_batches_by_cost(recordings, lambda r: r.cost, args.batch_s):
        results = spoil_no_other(
            batch, lambda items: encode_batch(tokenizer, items, args), "not_encoded"
        )
        part.note(dict(zip((item.key for item in batch), results, strict=True)))


def open_transcriber(args: argparse.Namespace, device: str) -> "EspnetAsr | None":
    """Open the recogniser that was asked for; None for the tokenizer's Whisper."""
    if (args.asr_config, args.asr_model_file, args.asr_tag) == (None, None, None):
        if args.asr_beam is not None:
            raise ValueError("--asr_beam is for the recogniser of --asr_tag")
        return None
    from espnet_taste.data.espnet_asr import load_espnet_asr

    return load_espnet_asr(
        args.asr_tag,
        args.asr_config,
        args.asr_model_file,
        device,
        **_beam_of(args, "beam_size"),
    )


def _beam_of(args: argparse.Namespace, name: str) -> dict[str, int]:
    """Return the width of the beam under a name; nothing if it was left out."""
    return {} if args.asr_beam is None else {name: args.asr_beam}


def read_recordings(
    args: argparse.Namespace, keys: list[str], part: "TokenPart", name: str
) -> Iterator[Recording]:
    """Yield what can be used and note what cannot."""
    from espnet_taste.bin.progress import progress

    data = open_data(args)
    for key in progress(keys, name):
        try:
            recording = read_recording(data, key, args.allow_pipes)
        except ExclusionError as error:
            logger.warning(f"'{key}' is left out: {error}")
            part.exclude(key, error)
            continue
        yield recording


def read_recording(data: "DataDir", key: str, allow_pipes: bool) -> Recording:
    """Read one utterance.

    Raises:
        ExclusionError: If audio or transcript cannot be used.
    """
    from espnet_taste.data.checks import Limits, check_audio, check_transcript
    from espnet_taste.types import SAMPLE_RATE_HZ

    # Of any length: the tokenizer cuts what Whisper cannot hear at once.
    limits = Limits(max_s=math.inf, max_words=sys.maxsize)
    text = None
    if data.text is not None:
        text = data.text.get(key)
        check_transcript(text, limits)
    wave = data.read(key, allow_pipes=allow_pipes)
    check_audio(wave, SAMPLE_RATE_HZ, limits)
    return Recording(key, wave, text)


def encode_batch(
    tokenizer: "TasteTokenizer", batch: Sequence[Recording], args: argparse.Namespace
) -> "list[TasteTokens]":
    """Encode recordings.

    Raises:
        OSError: If a GPU cannot hold the batch.
        ValueError: If one of them cannot be encoded.
    """
    # A long recording is encoded in windows of 30 s, so many at once.
    windows = int(args.batch_s // 30)
    with naming_full_gpu(args, "batch_s", [item.key for item in batch]):
        return tokenizer.encode(
            [item.wave for item in batch],
            [item.text for item in batch],
            word_times=args.word_times,
            batch_size=max(len(batch), windows),
        )


if __name__ == "__main__":
    sys.exit(main())
