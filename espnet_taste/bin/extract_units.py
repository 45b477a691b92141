#!/usr/bin/env python3
"""Write the speech units of a set: ``units.scp`` (float32 vectors) and ``units_shape``.

Float32, because ESPnet reads integer vectors sixty times slower; units are exact
in it.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from espnet_taste.bin.command import run_command, utterance_parser
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.audio import read_audio
from espnet_taste.data.exclusions import keep_settings
from espnet_taste.data.jobs import read_keys, write_lengths
from espnet_taste.data.kaldi import read_scp_arrays, read_table


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = utterance_parser(__doc__)
    parser.add_argument(
        "--units_dir", type=Path, required=True, help="folder of the stage train_units"
    )
    parser.add_argument(
        "--states_scp",
        type=Path,
        help="encoder states to make the units of, where they were kept for training "
        "them (units: whisper_vq); default: those of the audio",
    )
    parser.add_argument("--device", default="cpu")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(extract, get_parser(), "extract_units", argv)


def extract(args: argparse.Namespace) -> None:
    """Extract the units of all utterances that are not done yet."""
    import numpy as np

    from espnet_taste.weights.digests import identify_model

    keys = read_keys(args.data_dir, args.key_file)
    units_of = open_extractor(args, keys)
    settings = {"data_dir": args.data_dir, "states_scp": args.states_scp}
    settings["units_dir"] = identify_model(args.units_dir)
    keep_settings(args.output_dir, settings)
    with ArkWriter(args.output_dir, "units", keys=keys) as writer:
        for number, key in enumerate(keys):
            if key in writer.done:
                continue
            try:
                units = units_of(key)
            except ValueError as error:
                raise ValueError(f"'{key}': {error}") from error
            writer(key, units.astype(np.float32))
            if number % 100 == 0:
                logging.info(f"{number}/{len(keys)} utterances")
    write_lengths(writer.scp, args.output_dir / "units_shape")


def open_extractor(args: argparse.Namespace, keys: Sequence[str]) -> Callable:
    """Return what makes the units, (S,), of one of the utterance ids.

    Raises:
        ValueError: If states are given for units that are made of audio.
    """
    from espnet_taste.units.build import load_units
    from espnet_taste.units.whisper_vq import WhisperVQ

    extractor = load_units(args.units_dir).to(args.device)
    if args.states_scp is None:
        wav = read_table(args.data_dir / "wav.scp", frozenset(keys))
        folder = args.data_dir
        return lambda key: extractor.extract([read_audio(wav[key], folder=folder)])[0]
    if not isinstance(extractor, WhisperVQ):
        raise ValueError(
            f"--states_scp: the units of {args.units_dir} are not made of states that "
            "are kept; leave it out"
        )
    import torch

    wanted = frozenset(keys)
    kept = read_scp_arrays(args.states_scp, wanted)
    num_samples = read_table(args.data_dir / "utt2num_samples", wanted)

    def units_of_kept(key: str):
        if key not in kept:
            raise ValueError(f"no states in {args.states_scp}")
        states = torch.tensor(kept[key])
        return extractor.units_of_states(states, int(num_samples[key]))

    return units_of_kept


if __name__ == "__main__":
    sys.exit(main())
