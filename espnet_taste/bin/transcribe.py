#!/usr/bin/env python3
"""Make the transcripts of a formatted data folder that has none.

Writes a data folder of its own: text from Whisper or from an ESPnet recogniser, and
the tables of the input for the utterances in which words were heard. A killed run goes
on where it was.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command
from espnet_taste.bin.progress import progress
from espnet_taste.data.audio import AudioError
from espnet_taste.data.checks import Limits, TranscriptError, check_transcript
from espnet_taste.data.data_dir import (
    DataDir,
    keys_in,
    read_data_dir,
    select_keys,
    write_speakers,
)
from espnet_taste.data.exclusions import (
    Journal,
    check_share,
    is_excluded,
    summary_table,
    write_outcome,
)
from espnet_taste.data.kaldi import find_file, read_table, write_table

if TYPE_CHECKING:
    from espnet_taste.pipeline.listening import Transcriber


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data_dir",
        type=Path,
        required=True,
        help="made by format_audio --need_text false",
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--whisper", default="openai/whisper-tiny.en")
    parser.add_argument("--language", default="en", help="for multilingual models")
    parser.add_argument(
        "--asr_config", type=Path, help="ESPnet recogniser instead of Whisper"
    )
    parser.add_argument("--asr_model_file", type=Path)
    parser.add_argument("--asr_tag", help="model-zoo tag instead of the two files")
    parser.add_argument("--batch_size", type=int, default=8, help="utterances")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--max_words", type=int, default=Limits.max_words)
    parser.add_argument(
        "--max_excluded",
        type=float,
        default=0.2,
        help="stop if no words are heard in a larger share of the set",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(transcribe, get_parser(), "transcribe", argv)


def build_transcriber(args: argparse.Namespace) -> "Transcriber":
    """Make an object with ``transcribe(audios) -> texts`` from the options."""
    if args.asr_tag is not None or args.asr_config is not None:
        from espnet_taste.data.espnet_asr import load_espnet_asr

        return load_espnet_asr(
            args.asr_tag, args.asr_config, args.asr_model_file, args.device
        )
    from espnet_taste.align.transcripts import WhisperTranscriber

    return WhisperTranscriber(args.whisper, language=args.language, device=args.device)


def transcribe(args: argparse.Namespace) -> None:
    """Transcribe every utterance that is not done yet, then write the tables."""
    data = read_data_dir(args.data_dir, keys_in(args.key_file))
    if not (data.folder / "utt2num_samples").is_file() or data.utt2spk is None:
        raise ValueError(
            f"{data.folder} was not made by espnet_taste.bin.format_audio; run it first"
        )
    if args.output_dir.resolve() == data.folder.resolve():
        raise ValueError("--output_dir must not be --data_dir")
    if args.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {args.batch_size}")
    keys = select_keys(data.wav, args.key_file)
    names = ("data_dir", "whisper", "language", "asr_config", "asr_model_file")
    names += ("asr_tag", "max_words")
    settings = {name: getattr(args, name) for name in names}
    journal = Journal(args.output_dir / ".journal.jsonl", settings)
    left = [k for k in keys if not _is_done(journal.rows.get(k))]
    if left:
        # Batches of like lengths waste the least on the longest text.
        lengths = read_table(data.folder / "utt2num_samples", set(left))
        left.sort(key=lambda key: (int(lengths[key]), key))
        transcriber = build_transcriber(args)
        limits = Limits(max_words=args.max_words)
        with progress(None, "transcribe", total=len(left)) as bar:
            for start in range(0, len(left), args.batch_size):
                batch = left[start : start + args.batch_size]
                _transcribe_batch(batch, data, transcriber, journal, limits)
                bar.update(len(batch))
    _write_tables(data, {key: journal.rows[key] for key in keys}, args)


def _is_done(row: Mapping[str, object] | None) -> bool:
    """Tell whether a journal row has the text, or leaves the utterance out."""
    return row is not None and ("text" in row or is_excluded(row))


def _transcribe_batch(
    keys: Sequence[str],
    data: DataDir,
    transcriber: "Transcriber",
    journal: Journal,
    limits: Limits,
) -> None:
    """Transcribe some utterances and note each of them."""
    audios = {}
    for key in keys:
        try:
            audios[key] = data.read(key)
        except AudioError as error:
            journal.exclude(key, error)
    if not audios:
        return
    texts = transcriber.transcribe(list(audios.values()))
    for key, text in zip(audios, texts, strict=True):
        try:
            check_transcript(text, limits)
            journal.add(key, {"text": text})
        except TranscriptError as error:
            journal.exclude(key, error)


def _write_tables(
    data: DataDir, outcomes: dict[str, dict], args: argparse.Namespace
) -> None:
    """Write the folder of what was transcribed, the counts, and check the share."""
    folder = args.output_dir
    kept = {key: row for key, row in outcomes.items() if "reason" not in row}
    lengths = read_table(data.folder / "utt2num_samples", kept.keys())
    wav = {key: str(find_file(data.wav[key], data.folder)) for key in kept}
    write_table(folder / "wav.scp", wav)
    write_table(folder / "utt2num_samples", {key: lengths[key] for key in kept})
    write_table(folder / "text", {key: row["text"] for key, row in kept.items()})
    speakers = {key: data.utt2spk[key] for key in kept}
    write_speakers(folder, speakers, inverse=args.key_file is None)
    words = sum(len(row["text"].split()) for row in kept.values())
    summary = write_outcome(folder, outcomes, {"words": words}, args.max_excluded)
    print(f"{args.data_dir} -> {folder}\n{summary_table(summary)}")
    if args.key_file is None:
        check_share(summary, folder)


if __name__ == "__main__":
    sys.exit(main())
