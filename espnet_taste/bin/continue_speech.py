#!/usr/bin/env python3
"""Continue spoken prompts: the first words of every utterance, to new speech.

Writes audio of prompt and continuation together, ``wav.scp``, ``report.jsonl`` (prompt,
continuation, how it ended) and ``text``.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--key_file", type=Path, help="subset; default: all")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--features_dir", type=Path, required=True)
    parser.add_argument("--codes_dir", type=Path, required=True)
    parser.add_argument("--slm_file", type=Path, required=True)
    parser.add_argument("--tokenizer_file", type=Path, required=True)
    parser.add_argument("--vocoder_dir", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="decoding options, YAML")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        continue_all(args)
    except (OSError, ValueError) as error:
        print(f"continue_speech: {error}", file=sys.stderr)
        return 1
    return 0


def continue_all(args: argparse.Namespace) -> None:
    """Write the continuations of all utterances that have none yet."""
    from espnet_taste.data.audio_output import AudioOutput
    from espnet_taste.data.jobs import read_keys
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.pipeline.continuation import open_continuation

    keys = read_keys(args.data_dir, args.key_file)
    output = AudioOutput(args.output_dir)
    todo = [key for key in keys if key not in output.done]
    if todo:
        source, options = open_continuation(args)
        todo = todo[: options.max_prompts] if options.max_prompts else todo
        for batch in in_batches(todo, options.batch_size):
            for key, result in zip(batch, source(batch), strict=True):
                output.write(key, result.audio, result.sample_rate_hz, result.facts)
            logging.info(f"{len(output.done)}/{len(keys)} utterances")
    output.close(sorted(output.done & set(keys)))


if __name__ == "__main__":
    sys.exit(main())
