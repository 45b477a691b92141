#!/usr/bin/env python3
"""Continue spoken prompts: the first words of every utterance, to new speech.

Only the audio of these words is heard, so that nothing tells what really followed.

Writes audio of prompt and continuation together, ``wav.scp``, ``report.jsonl`` (prompt,
continuation, how it ended) and ``text``.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument("--features_dir", type=Path, required=True)
    parser.add_argument("--slm_file", type=Path, required=True)
    parser.add_argument("--tokenizer_file", type=Path, required=True)
    parser.add_argument("--vocoder_dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="decoding options, YAML")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(continue_all, get_parser(), "continue_speech", argv)


def continue_all(args: argparse.Namespace) -> None:
    """Write the continuations of all batches that are not done yet."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.decoder.vocoder import build_vocoder
    from espnet_taste.pipeline.continuation import Parts, SpeechContinuer
    from espnet_taste.pipeline.slm import SpokenLMInference
    from espnet_taste.pipeline.speech import DecodeOptions, UnitSynthesizer
    from espnet_taste.pipeline.tokenizer import TokenizerInference

    options = DecodeOptions.read(args.config)
    keys = choose_prompts(args.data_dir, args.key_file, options.max_prompts)

    def open_source():
        vocoder = build_vocoder(args.vocoder_dir, device=args.device)
        parts = Parts(
            SpokenLMInference(args.slm_file, device=args.device),
            TokenizerInference(args.tokenizer_file, device=args.device),
            UnitSynthesizer(vocoder, args.device),
        )
        return SpeechContinuer(parts, args.data_dir, args.features_dir, options)

    AudioOutput(args.output_dir).fill(keys, options.batch_size, open_source)


def choose_prompts(
    data_dir: Path, key_file: Path | None, max_prompts: int
) -> list[str]:
    """Return a job's share of the prompts of a set; other jobs change nothing.

    Args:
        data_dir: Kaldi-style folder.
        key_file: What the job works on; None for all.
        max_prompts: Prompts of the whole set, its first; 0 for all.

    Returns:
        Utterance ids, none if the prompts are all other jobs'.

    Raises:
        ValueError: If ``key_file`` names an unknown utterance.
    """
    from espnet_taste.data.jobs import read_keys

    keys = read_keys(data_dir, key_file)
    if not max_prompts:
        return keys
    prompts = set(read_keys(data_dir, None)[:max_prompts])
    return [key for key in keys if key in prompts]


if __name__ == "__main__":
    sys.exit(main())
