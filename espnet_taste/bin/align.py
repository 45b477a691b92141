#!/usr/bin/env python3
"""Find the time of every word of a formatted data folder.

Writes a data folder of its own: wav.scp, utt2spk, spk2utt and utt2num_samples of the
utterances aligned, text in which words are what stands between blanks (of scripts
written without, every sign), word_times.scp ((W, 2) float32, start and end in s, one
row a word) and the same as words.ctm.
Utterances that could not be aligned stand in excluded.jsonl, counts in summary.json. A
killed run goes on where it was.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from espnet_taste.align.contracts import AbsAligner, AlignmentError, uniform_times
from espnet_taste.align.spoken import attach_punctuation
from espnet_taste.bin.command import run_command
from espnet_taste.bin.progress import progress
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.audio import AudioError
from espnet_taste.data.checks import TranscriptError
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
from espnet_taste.data.kaldi import (
    atomic_write,
    find_file,
    read_scp_arrays,
    read_table,
    write_table,
)
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import space_signs, split_words

# Aligner to those of its options that decide the result.
OPTIONS_OF = {
    "pocketsphinx": (),
    "whisper": ("whisper", "language"),
    "ctc": ("asr_config", "asr_model_file", "asr_tag"),
    "existing": ("alignments", "tier"),
}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="made by format_audio"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--key_file",
        type=Path,
        help="work on these utterances only; --max_excluded is then left to whoever "
        "joins the parts",
    )
    parser.add_argument(
        "--aligner",
        choices=list(OPTIONS_OF),
        default="pocketsphinx",
        help="pocketsphinx: English, offline; whisper: any language; ctc: an ESPnet "
        "recogniser; existing: TextGrids or CTM",
    )
    parser.add_argument(
        "--on_failure",
        choices=["exclude", "uniform"],
        default="exclude",
        help="uniform: split the audio evenly over the words, and count it",
    )
    parser.add_argument(
        "--max_excluded",
        type=float,
        default=0.2,
        help="stop if a larger share of the set would be left out",
    )
    group = parser.add_argument_group("aligner: whisper")
    group.add_argument("--whisper", default="openai/whisper-tiny.en")
    group.add_argument("--language", default="en", help="for multilingual models")
    group.add_argument("--device", default="cpu", help="also for ctc")
    group = parser.add_argument_group("aligner: ctc")
    group.add_argument("--asr_config", type=Path)
    group.add_argument("--asr_model_file", type=Path)
    group.add_argument("--asr_tag", help="model-zoo tag instead of the two files")
    group = parser.add_argument_group("aligner: existing")
    group.add_argument("--alignments", type=Path, help="CTM file or TextGrid folder")
    group.add_argument("--tier", default="words", help="TextGrid tier of the words")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(align, get_parser(), "align", argv)


def build_aligner(args: argparse.Namespace, keys: Sequence[str]) -> AbsAligner:
    """Make the aligner that the options name, for the utterances of the job.

    Raises:
        ValueError: If an option of it is missing.
        MissingPackageError: If its package is not installed.
    """
    if args.aligner == "pocketsphinx":
        from espnet_taste.align.pocketsphinx import PocketSphinxAligner

        return PocketSphinxAligner()
    if args.aligner == "whisper":
        from espnet_taste.align.whisper_dtw import WhisperAligner

        return WhisperAligner(args.whisper, language=args.language, device=args.device)
    if args.aligner == "existing":
        from espnet_taste.align.existing import ExistingAligner

        if args.alignments is None:
            raise ValueError(
                "--aligner existing needs --alignments (in the recipe: --aligner_opts "
                "'--alignments FILE_OR_FOLDER')"
            )
        return ExistingAligner(args.alignments, tier=args.tier, keys=keys)
    from espnet_taste.align.ctc import CtcAligner
    from espnet_taste.data.espnet_asr import load_espnet_asr

    asr = load_espnet_asr(
        args.asr_tag, args.asr_config, args.asr_model_file, args.device
    )
    return CtcAligner(
        asr.log_probs, asr.encode_word, separator=asr.separator, blank=asr.blank
    )


def align(args: argparse.Namespace) -> None:
    """Align every utterance that is not done yet, then write the tables."""
    data = read_data_dir(args.data_dir, keys_in(args.key_file))
    _check_formatted(data, args)
    keys = select_keys(data.utterances, args.key_file)
    if not keys:
        raise ValueError(f"{args.data_dir}: no utterances")
    names = ("data_dir", "aligner", "on_failure", *OPTIONS_OF[args.aligner])
    settings = {name: getattr(args, name) for name in names}
    journal = Journal(args.output_dir / ".journal.jsonl", settings)
    writer = ArkWriter(args.output_dir, "word_times")
    if args.aligner == "existing":
        journal.rows = {k: r for k, r in journal.rows.items() if not _is_absent(r)}
    left = [k for k in keys if not _is_done(k, journal.rows, writer.done)]
    if left:
        aligner = build_aligner(args, left)
        for key in progress(left, "align"):
            try:
                row, times = _align_one(key, data, aligner, args.on_failure)
            except (AlignmentError, AudioError, TranscriptError) as error:
                journal.exclude(key, error)
                continue
            journal.add(key, row)
            if key not in writer.done:
                writer(key, times)
    writer.close()
    _write_tables(data, {key: journal.rows[key] for key in keys}, args)


def _check_formatted(data: DataDir, args: argparse.Namespace) -> None:
    """Refuse a folder that the formatting stage has not made."""
    formatted = (data.folder / "utt2num_samples").is_file() and data.segments is None
    if not formatted or data.utt2spk is None:
        raise ValueError(
            f"{data.folder} was not made by espnet_taste.bin.format_audio; run it first"
        )
    if data.text is None:
        raise FileNotFoundError(
            f"no text in {data.folder}; make transcripts with "
            "espnet_taste.bin.transcribe"
        )
    if args.output_dir.resolve() == data.folder.resolve():
        raise ValueError("--output_dir must not be --data_dir: its text is kept")


def _is_done(key: str, rows: Mapping[str, dict], written: set[str]) -> bool:
    """Tell whether an utterance is excluded, or noted and its times on disk."""
    row = rows.get(key, {"reason": "unreadable"})
    return is_excluded(row) if "reason" in row else key in written


def _is_absent(row: Mapping[str, object]) -> bool:
    """Tell whether an utterance had no alignment, which may have been made since."""
    return row.get("reason") == "no_alignment"


def _align_one(
    key: str, data: DataDir, aligner: AbsAligner, on_failure: str
) -> tuple[dict, np.ndarray]:
    """Align one utterance; return its journal row and times (W, 2) float32."""
    # The word rule of whoever encodes with the model: unspaced scripts, a word a sign.
    written = split_words(space_signs(data.text.get(key, "")))
    words, num_attached = attach_punctuation(written)
    if not words:
        raise TranscriptError("no_speakable_word", "no letter or digit in its text")
    audio = data.read(key)
    row = {"text": " ".join(words), "attached": num_attached}
    try:
        found = aligner.align(audio, words, key=key)
    except AlignmentError as error:
        if on_failure == "exclude":
            raise
        found = uniform_times(len(words), len(audio) / SAMPLE_RATE_HZ)
        row["uniform"] = error.reason
    return {**row, "moved": found.num_moved}, found.times


def _write_tables(
    data: DataDir, outcomes: dict[str, dict], args: argparse.Namespace
) -> None:
    """Write the folder of what was aligned, the counts, and check the share."""
    folder = args.output_dir
    kept = {key: row for key, row in outcomes.items() if "reason" not in row}
    lengths = read_table(data.folder / "utt2num_samples", kept.keys())
    wav = {key: str(find_file(data.wav[key], data.folder)) for key in kept}
    # An earlier run may have had other keys, when the number of jobs was another.
    places = read_table(folder / "word_times.scp")
    write_table(folder / "word_times.scp", {key: places[key] for key in kept})
    _write_ctm(folder, kept)
    write_table(folder / "wav.scp", wav)
    write_table(folder / "utt2num_samples", {key: lengths[key] for key in kept})
    write_table(folder / "text", {key: row["text"] for key, row in kept.items()})
    speakers = {key: data.utt2spk[key] for key in kept}
    write_speakers(folder, speakers, inverse=args.key_file is None)
    counts = {
        "words": sum(len(row["text"].split(" ")) for row in kept.values()),
        "words_attached": sum(row["attached"] for row in kept.values()),
        "words_moved": sum(row["moved"] for row in kept.values()),
        "aligned_uniformly": sum("uniform" in row for row in kept.values()),
    }
    summary = write_outcome(folder, outcomes, counts, args.max_excluded)
    print(f"{args.data_dir} -> {folder}\n{summary_table(summary)}")
    print(json.dumps(counts))
    if args.key_file is None:
        check_share(summary, folder)


def _write_ctm(folder: Path, kept: Mapping[str, dict]) -> None:
    """Write ``utterance 1 start duration word`` lines."""
    arrays = read_scp_arrays(folder / "word_times.scp")
    with atomic_write(folder / "words.ctm") as stream:
        for key in sorted(kept):
            words = kept[key]["text"].split(" ")
            stream.writelines(_ctm_lines(key, words, arrays[key]))


def _ctm_lines(key: str, words: Sequence[str], times: np.ndarray) -> Iterable[str]:
    for word, (start, end) in zip(words, times, strict=True):
        yield f"{key} 1 {start:.3f} {end - start:.3f} {word}\n"


if __name__ == "__main__":
    sys.exit(main())
