#!/usr/bin/env python3
"""Bring a Kaldi-style data folder to 16 kHz FLAC, leaving out what cannot be used.

Writes wav.scp, text, utt2spk, spk2utt and utt2num_samples; excluded.jsonl names every
utterance left out with its reason, summary.json holds the counts. A killed run goes on
where it was.
"""

import argparse
import hashlib
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import soundfile

from espnet_taste.bin.command import parse_bool
from espnet_taste.bin.progress import progress
from espnet_taste.data.checks import Limits, check_audio, check_transcript
from espnet_taste.data.data_dir import (
    DataDir,
    keys_in,
    read_data_dir,
    select_keys,
    speaker_of,
    write_speakers,
)
from espnet_taste.data.exclusions import (
    ExclusionError,
    Journal,
    check_share,
    is_excluded,
    summary_table,
    write_outcome,
)
from espnet_taste.data.kaldi import atomic_write, write_table
from espnet_taste.types import SAMPLE_RATE_HZ

MAX_NAME = 200  # of a file, quoted; file systems take 255 bytes with all that is added


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--key_file",
        type=Path,
        help="work on these utterances only; --max_excluded is then left to whoever "
        "joins the parts",
    )
    limits = parser.add_argument_group("what is left out")
    limits.add_argument("--min_s", type=float, default=Limits.min_s)
    limits.add_argument("--max_s", type=float, default=Limits.max_s)
    limits.add_argument(
        "--min_peak", type=float, default=Limits.min_peak, help="below is silence"
    )
    limits.add_argument("--max_words", type=int, default=Limits.max_words)
    limits.add_argument(
        "--max_excluded",
        type=float,
        default=0.2,
        help="stop if a larger share of the set would be left out",
    )
    parser.add_argument(
        "--need_text",
        type=parse_bool,
        default=True,
        help="false: no transcripts yet, espnet_taste.bin.transcribe makes them later",
    )
    parser.add_argument(
        "--speaker_from",
        choices=["utt2spk", "strip_chapter", "utterance"],
        default="utt2spk",
        help="strip_chapter: 103-1240 -> 103; utterance: each its own speaker",
    )
    parser.add_argument(
        "--allow_pipes",
        type=parse_bool,
        default=False,
        help="run the commands in wav.scp; only for folders you trust",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        format_audio(args)
    except (OSError, ValueError) as error:
        print(f"format_audio: {error}", file=sys.stderr)
        return 1
    return 0


def format_audio(args: argparse.Namespace) -> None:
    """Format every utterance that is not done yet, then write the tables."""
    data = read_data_dir(args.data_dir, keys_in(args.key_file))
    _check_tables(data, args)
    keys = select_keys(data.utterances, args.key_file)
    if not keys:
        raise ValueError(f"{args.data_dir}: no utterances")
    limits = Limits(args.min_s, args.max_s, args.min_peak, args.max_words)
    names = ("data_dir", "need_text", "speaker_from", "allow_pipes")
    settings = {**vars(limits), **{name: getattr(args, name) for name in names}}
    journal = Journal(args.output_dir / ".journal.jsonl", settings)
    left = [key for key in keys if not _is_done(journal.rows.get(key))]
    for key in progress(left, "format_audio"):
        try:
            journal.add(key, _format_one(key, data, limits, args))
        except ExclusionError as error:
            journal.exclude(key, error)
    _write_tables(data, {key: journal.rows[key] for key in keys}, args)


def _check_tables(data: DataDir, args: argparse.Namespace) -> None:
    """Refuse a folder that lacks a whole table, which is no matter of utterances."""
    if args.need_text and data.text is None:
        raise FileNotFoundError(
            f"no text in {data.folder}; give --need_text false and make transcripts "
            "with espnet_taste.bin.transcribe (in the recipe: --transcripts asr)"
        )
    if args.speaker_from != "utterance" and data.utt2spk is None:
        raise FileNotFoundError(
            f"no utt2spk in {data.folder}; give --speaker_from utterance (in the "
            "recipe: --format_opts '--speaker_from utterance')"
        )
    if args.output_dir.resolve() == data.folder.resolve():
        raise ValueError("--output_dir must not be --data_dir: its tables are kept")
    # Tables of the output cannot hold them, and hours of work would come first.
    for key, text in (data.text or {}).items():
        if "\r" in text:
            raise ValueError(
                f"{data.folder}/text: '{key}' holds a line break: {text!r}"
            )
    if args.speaker_from != "utterance":
        for key, speaker in data.utt2spk.items():
            if len(speaker.split()) > 1:
                raise ValueError(
                    f"{data.folder}/utt2spk: the speaker of '{key}' must be a name "
                    f"without blanks, got {speaker!r}"
                )


def _is_done(row: dict | None) -> bool:
    """Tell whether a journal row stands for finished work that is still there.

    A transcript that was missing may be in the table since.
    """
    if row is None or row.get("reason") == "no_transcript":
        return False
    if "reason" in row:
        return is_excluded(row)
    return Path(row["path"]).is_file()


def _format_one(
    key: str, data: DataDir, limits: Limits, args: argparse.Namespace
) -> dict:
    """Check one utterance and write its FLAC file; return its journal row."""
    samples = data.read(key, allow_pipes=args.allow_pipes)
    check_audio(samples, SAMPLE_RATE_HZ, limits)
    if args.need_text:
        check_transcript(data.text.get(key), limits)
    row = {
        "path": str(flac_path(args.output_dir, key)),
        "speaker": speaker_of(key, data.utt2spk, args.speaker_from),
        "num_samples": len(samples),
        "num_clipped": int((np.abs(samples) > 1).sum()),
    }
    # In memory, because libsndfile does not report a full disk reliably. It clips.
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    with atomic_write(row["path"], "wb") as stream:
        stream.write(encoded.getvalue())
    return row


def flac_path(output_dir: Path, key: str) -> Path:
    """Return where an utterance's audio goes.

    One of 256 folders, so that a corpus of millions can be listed; characters that a
    file name cannot hold are written as %XX, and what gets too long ends in a digest.
    """
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    name = quote(key, safe="")
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME - len(digest) - 1]}-{digest}"
    return output_dir / "flac" / digest[:2] / f"{name}.flac"


def _write_tables(
    data: DataDir, outcomes: dict[str, dict], args: argparse.Namespace
) -> None:
    """Write the tables of the utterances kept, the counts, and check the share."""
    folder = args.output_dir
    kept = {key: row for key, row in outcomes.items() if "reason" not in row}
    write_table(folder / "wav.scp", {key: row["path"] for key, row in kept.items()})
    write_table(
        folder / "utt2num_samples",
        {key: str(row["num_samples"]) for key, row in kept.items()},
    )
    speakers = {key: row["speaker"] for key, row in kept.items()}
    write_speakers(folder, speakers, inverse=args.key_file is None)
    if data.text is not None:
        texts = {key: data.text[key] for key in kept if data.text.get(key)}
        write_table(folder / "text", texts)
    num_samples = sum(row["num_samples"] for row in kept.values())
    counts = {
        "seconds_kept": round(num_samples / SAMPLE_RATE_HZ, 3),
        "samples_clipped": sum(row["num_clipped"] for row in kept.values()),
    }
    summary = write_outcome(folder, outcomes, counts, args.max_excluded)
    print(f"{args.data_dir} -> {folder}\n{summary_table(summary)}")
    if args.key_file is None:
        check_share(summary, folder)


if __name__ == "__main__":
    sys.exit(main())
