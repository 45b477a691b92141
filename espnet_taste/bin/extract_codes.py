#!/usr/bin/env python3
"""Extract the TASTE codes of a set: one row of codes a word.

Writes ``codes.scp`` ((W, Q) float32 arks), ``codes_shape`` (words and codebooks, for
ESPnet's batches) and ``codes.tsv``, a table to read: utterance, word, start and end in
seconds, codes.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet_taste.bin.command import run_command, utterance_parser

if TYPE_CHECKING:
    import numpy as np


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument("--features_dir", type=Path, required=True)
    parser.add_argument("--model_file", type=Path, required=True)
    parser.add_argument("--batch_size", type=int, default=16, help="utterances")
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_codes", argv)


def extract(args: argparse.Namespace) -> None:
    """Write the codes of all utterances that are not done yet, then the tables."""
    import numpy as np

    from espnet_taste.data.ark_writer import ArkWriter
    from espnet_taste.data.exclusions import keep_settings
    from espnet_taste.data.jobs import read_keys
    from espnet_taste.data.kaldi import read_scp_arrays, write_table
    from espnet_taste.data.utterances import in_batches
    from espnet_taste.pipeline.tokenizer import TokenizerInference
    from espnet_taste.weights.digests import noted_sha256

    keys = read_keys(args.data_dir, args.key_file)
    settings = {name: vars(args)[name] for name in ("data_dir", "features_dir")}
    settings["model_file"] = f"{args.model_file} {noted_sha256(args.model_file)[:16]}"
    keep_settings(args.output_dir, settings)
    with ArkWriter(args.output_dir, "codes", keys=keys) as writer:
        if not writer.done.issuperset(keys):
            model = TokenizerInference(args.model_file, device=args.device)
            utterances = model.open(args.data_dir, args.features_dir, frozenset(keys))
        # Of all keys, and made again whole: a row's last bits depend on its batch, and
        # a killed run must not end with others.
        for number, batch in enumerate(in_batches(keys, args.batch_size)):
            if writer.done.issuperset(batch):
                continue
            codes = model.word_codes([(key, utterances[key]) for key in batch])
            for key, rows in zip(batch, codes, strict=True):
                if key not in writer.done:
                    writer(key, rows.astype(np.float32))
            if number % 20 == 0:
                logging.info(f"{number * args.batch_size}/{len(keys)} utterances")
    codes = read_scp_arrays(args.output_dir / "codes.scp")
    shapes = {key: ",".join(map(str, codes[key].shape)) for key in keys}
    write_table(args.output_dir / "codes_shape", shapes)
    write_readable_table(args, keys, codes)


def write_readable_table(
    args: argparse.Namespace, keys: Sequence[str], codes: "Mapping[str, np.ndarray]"
) -> None:
    """Write ``codes.tsv`` of codes (W, Q) by key; times are empty if there are none."""
    from espnet_taste.data.kaldi import atomic_write, read_scp_arrays, read_table
    from espnet_taste.words import split_words

    wanted = frozenset(keys)
    text = read_table(args.data_dir / "text", wanted)
    scp = args.data_dir / "word_times.scp"
    times = read_scp_arrays(scp, wanted) if scp.exists() else {}
    with atomic_write(args.output_dir / "codes.tsv") as stream:
        stream.write("# utterance\tword\tstart_s\tend_s\tcodes\n")
        for key in keys:
            words = split_words(text[key])
            spans = times[key] if key in times else [("", "")] * len(words)
            for word, span, row in zip(words, spans, codes[key], strict=True):
                places = [f"{t:.2f}" if t != "" else "" for t in span]
                values = " ".join(str(int(code)) for code in row)
                stream.write("\t".join([key, word, *places, values]) + "\n")


if __name__ == "__main__":
    sys.exit(main())
