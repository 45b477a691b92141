#!/usr/bin/env python3
"""Turn one system's outputs on one test set into a score file.

Kinds and what they read (beside --data_dir, a formatted Kaldi folder):

  audio  --wav_scp of the system's audio (left out: the original audio itself) and
         --generation_report, JSON lines with key, num_units and stopped_by ("end" if
         the model ended the output, anything else if a bound did)
  units  --unit_scores, JSON lines as espnet_taste/eval/unit_scores.py describes
  codes  --codes_scp and/or --units_scp; the rate of the transcript is always added
  slm    --slm_scores (espnet_taste/eval/slm_scores.py), and --codes_scp with
         --train_codes_scp for the unigram baseline

Codebook size and number of units are options, or read from --train_config, the
config.yaml that training the tokenizer left.

The output is <output_dir>/scores_<kind>.json. Judged transcripts are kept in
<output_dir>/judge.jsonl, so a killed run goes on where it stopped.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.judging import add_judge, open_judge
from espnet_taste.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from espnet_taste.eval.audio_scores import Listener

# What every kind cannot do without, beside the options required of all.
REQUIRED = {
    "audio": ("reference_cache",),
    "units": ("unit_scores",),
    "codes": (),
    "slm": ("slm_scores", "codes_scp", "train_codes_scp"),
}
# Where the training config of the tokenizer holds the size of a stream's alphabet.
CONFIG_KEYS = {
    "num_code_entries": ("quantizer_conf", "codebook_size"),
    "num_units": ("decoder_conf", "num_units"),
}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(REQUIRED), required=True)
    parser.add_argument("--system", required=True, help="name for messages")
    parser.add_argument("--set", required=True, help="name of the test set")
    parser.add_argument(
        "--data_dir", type=Path, required=True, help="wav.scp, text, utt2num_samples"
    )
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument(
        "--key_file", type=Path, help="score only these utterances, one id a line"
    )
    _add_audio_options(parser.add_argument_group("audio"))
    group = parser.add_argument_group("units, codes and slm")
    group.add_argument("--unit_scores", type=Path)
    group.add_argument("--slm_scores", type=Path)
    group.add_argument("--codes_scp", type=Path, help="word codes, (W, Q)")
    group.add_argument("--train_codes_scp", type=Path, help="of the training set")
    group.add_argument("--num_code_entries", type=int, help="codebook size K")
    group.add_argument("--units_scp", type=Path, help="speech units, (S,)")
    group.add_argument("--num_units", type=int, help="number of unit classes")
    group.add_argument("--train_config", type=Path, help="config.yaml with both sizes")
    return parser


def _add_audio_options(group: argparse._ArgumentGroup) -> None:
    """Add what only the audio scores read."""
    group.add_argument("--wav_scp", type=Path)
    group.add_argument("--generation_report", type=Path)
    group.add_argument(
        "--reference_cache",
        type=Path,
        help="judge.jsonl of the original audio, shared by all systems",
    )
    add_judge(group)
    group.add_argument(
        "--judge_compute_type", default="int8", help="CTranslate2 type, or float32"
    )
    group.add_argument("--judge_threads", type=int, default=0, help="0: automatic")
    group.add_argument("--speaker_encoder", default="resemblyzer/ge2e")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    absent = [name for name in REQUIRED[args.kind] if getattr(args, name) is None]
    if absent:
        parser.error(f"--kind {args.kind} needs --{' --'.join(absent)}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    # It reports the length of every signal.
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)
    from espnet_taste.eval.score_file import ScoreFile
    from espnet_taste.packages import MissingPackageError

    try:
        texts = _read_texts(args)
        kinds: dict[str, Callable] = {
            "audio": _score_audio,
            "units": _score_units,
            "codes": _score_codes,
            "slm": _score_slm,
        }
        fields = kinds[args.kind](args, texts)
        fields["metadata"] = {**_made_by(), **fields.get("metadata", {})}
        scores = ScoreFile(args.system, args.set, args.kind, **fields)
        scores.save(args.output_dir / f"scores_{args.kind}.json")
    except (OSError, ValueError, MissingPackageError) as error:
        print(
            f"score: system '{args.system}', set '{args.set}': {error}", file=sys.stderr
        )
        return 1
    return 0


def _made_by() -> dict[str, str]:
    """Return what the page tells of a score, whenever it is written."""
    from espnet_taste.eval.environment import MADE_BY, describe_environment

    found = describe_environment()
    return {name: found[name] for name in MADE_BY}


def _read_texts(args: argparse.Namespace) -> dict[str, str]:
    """Return the transcripts of the utterances to score."""
    from espnet_taste.data.kaldi import read_table

    texts = read_table(args.data_dir / "text")
    if args.key_file is not None:
        keys = read_table(args.key_file)
        unknown = sorted(keys.keys() - texts.keys())
        if unknown:
            raise ValueError(
                f"{args.key_file}: {len(unknown)} ids are not in "
                f"{args.data_dir / 'text'}: {unknown[:10]}"
            )
        texts = {key: text for key, text in texts.items() if key in keys}
    if not texts:
        raise ValueError(f"{args.data_dir / 'text'}: no utterance to score")
    return texts


def _score_audio(args: argparse.Namespace, texts: Mapping[str, str]) -> dict:
    """Judge the audio of one system, or the original."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.audio_scores import (
        AudioSet,
        score_original,
        score_outputs,
    )
    from espnet_taste.eval.generation import read_generation
    from espnet_taste.eval.normalise import NORMALISER

    def audio_set(wav_scp: Path) -> AudioSet:
        return AudioSet(read_table(wav_scp), wav_scp.parent)

    original = audio_set(args.data_dir / "wav.scp")
    outputs = None if args.wav_scp is None else audio_set(args.wav_scp)
    values, bounds = {}, {}
    if args.generation_report is not None:
        values, bounds = read_generation(args.generation_report, texts.keys())
    listener = _build_listener(args, needs_speaker=outputs is not None)
    metadata = {"judge": listener.judge.name, "normaliser": NORMALISER}
    if outputs is None:
        items, skipped = score_original(texts, original, listener)
    else:
        items, skipped = score_outputs(texts, original, outputs, listener)
        metadata["speaker_encoder"] = args.speaker_encoder
    return {
        "items": items,
        "values": values,
        "skipped": skipped | bounds,
        "metadata": metadata,
    }


def _build_listener(args: argparse.Namespace, *, needs_speaker: bool) -> "Listener":
    """Load the judge and, where outputs are compared, the speaker encoder."""
    from espnet_taste.eval.audio_scores import Listener

    judge = open_judge(args, args.judge_compute_type, args.judge_threads)
    embed = _no_speaker
    if needs_speaker:
        from espnet_taste.units.speaker import SpeakerEncoder
        from espnet_taste.weights import resolve

        embed = SpeakerEncoder.load(resolve(args.speaker_encoder)).embed
    return Listener(judge, args.output_dir / "judge.jsonl", args.reference_cache, embed)


def _no_speaker(audio: object) -> None:
    """Stand in for the encoder where nothing is compared."""
    raise RuntimeError("the original audio is not compared with itself")


def _score_units(args: argparse.Namespace, texts: Mapping[str, str]) -> dict:
    """Pool teacher-forced unit scores and the rises under exchange."""
    from espnet_taste.eval.reliance import rise_items
    from espnet_taste.eval.unit_scores import read_unit_scores, unit_items

    scores = read_unit_scores(args.unit_scores, texts.keys())
    rises = rise_items(scores)
    items = {key: fields | rises[key] for key, fields in unit_items(scores).items()}
    return {"items": items}


def _score_codes(args: argparse.Namespace, texts: Mapping[str, str]) -> dict:
    """Measure the rates of codes, units and transcript."""
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.eval.bitrate import code_rate, rate_values, text_rate
    from espnet_taste.eval.normalise import NORMALISER, normalise

    lengths = read_table(args.data_dir / "utt2num_samples")
    durations_s = {key: int(num) / SAMPLE_RATE_HZ for key, num in lengths.items()}
    spoken = {key: normalise(text) for key, text in texts.items()}
    values = rate_values("text", text_rate(spoken, durations_s))
    for stream, scp, option in (
        ("code", args.codes_scp, "num_code_entries"),
        ("unit", args.units_scp, "num_units"),
    ):
        if scp is not None:
            size = _alphabet_size(args, option)
            codes = _read_codes(scp, texts)
            values |= rate_values(stream, code_rate(codes, durations_s, size))
    return {"items": {}, "values": values, "metadata": {"normaliser": NORMALISER}}


def _score_slm(args: argparse.Namespace, texts: Mapping[str, str]) -> dict:
    """Pool spoken-LM losses and add the unigram baseline."""
    from espnet_taste.data.kaldi import read_scp_arrays
    from espnet_taste.eval.slm_scores import UnigramModel, read_slm_scores

    items = read_slm_scores(args.slm_scores, texts.keys())
    num_entries = _alphabet_size(args, "num_code_entries")
    unigram = UnigramModel.fit(read_scp_arrays(args.train_codes_scp), num_entries)
    codes = _read_codes(args.codes_scp, texts)
    for key, fields in items.items():
        fields |= unigram.fields(key, codes[key])
        scored, there = fields.get("slm_code_count"), fields["unigram_words"]
        if scored not in (None, there):
            raise ValueError(
                f"'{key}': {args.slm_scores} scores the codes of {scored:g} words, "
                f"{args.codes_scp} has {there}; score_slm must read the same codes"
            )
    return {"items": items}


def _alphabet_size(args: argparse.Namespace, option: str) -> int:
    """Return a stream's number of symbols, from its option or the training config."""
    given = getattr(args, option)
    if given is not None:
        return given
    if args.train_config is None:
        raise ValueError(f"--{option} or --train_config is needed")
    from espnet_taste.eval.environment import read_train_config

    section, name = CONFIG_KEYS[option]
    size = (read_train_config(args.train_config).get(section) or {}).get(name)
    if not isinstance(size, int):
        raise ValueError(
            f"{args.train_config}: no {section}: {name}; give --{option} instead"
        )
    return size


def _read_codes(scp: Path, texts: Mapping[str, str]) -> dict:
    """Read the arrays of the set's utterances."""
    from espnet_taste.data.kaldi import read_scp_arrays

    arrays = read_scp_arrays(scp)
    missing = sorted(texts.keys() - arrays.keys())
    if missing:
        raise ValueError(f"{scp}: no entry for {len(missing)} ids: {missing[:10]}")
    return {key: arrays[key] for key in texts}


if __name__ == "__main__":
    sys.exit(main())
