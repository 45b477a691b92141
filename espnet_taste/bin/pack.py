#!/usr/bin/env python3
"""Pack tokenizer, vocoder and spoken LM into one file that ESPnet's zoo can hold.

An experiment whose spoken LM was left out is packed without it. The frozen weights
(Whisper, LLM, HiFi-GAN) are not inside: the configs name them with their sha256, and
they are fetched when the file is loaded. CAM++, which cannot be fetched, is inside if
the experiment was trained with it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Key prefix in the pack to folder of the experiment.
PARTS = {"": "taste", "vocoder_": "vocoder", "slm_": "slm"}
OPTIONAL = "slm"  # left out where its training was never begun


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--exp_dir", type=Path, required=True, help="holds taste, vocoder, units, slm"
    )
    parser.add_argument(
        "--inference_model",
        help="checkpoint of the tokenizer; default: the one that the recipe noted",
    )
    parser.add_argument("--output", type=Path, required=True, help="a .zip file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    try:
        pack_experiment(args.exp_dir, args.inference_model, args.output)
    except (OSError, ValueError) as error:
        print(f"pack: {error}", file=sys.stderr)
        return 1
    return 0


def pack_experiment(exp_dir: Path, model_name: str | None, output: Path) -> None:
    """Write the pack; it appears under its name only when complete.

    Args:
        exp_dir: Experiment folder of the recipe.
        model_name: Checkpoint of the tokenizer; None for the one that is used.
        output: The pack.

    Raises:
        FileNotFoundError: If a part was not trained.
        ValueError: If the experiment does not lie under the working directory, whose
            relative paths the pack holds.
    """
    from espnet2.main_funcs.pack_funcs import pack

    from espnet_taste.weights.digests import trained_file

    if not exp_dir.resolve().is_relative_to(Path.cwd()):
        raise ValueError(
            f"{exp_dir} is outside the working directory; a pack holds relative paths, "
            "so run this from a folder above the experiment"
        )
    files, yaml_files = {}, {}
    for prefix, name in PARTS.items():
        folder = exp_dir / name
        config = folder / "config.yaml"
        if name == OPTIONAL and not config.exists():
            print(f"pack: no {config}; the pack holds a tokenizer without spoken LM")
            continue
        model = trained_file(folder)
        if name == "taste" and model_name is not None:
            model = folder / model_name
        files[f"{prefix}model_file"] = model
        yaml_files[f"{prefix}train_config"] = config
    # The files, not the folder: it also holds the recipe's markers.
    option = [exp_dir / "units" / name for name in ("config.json", "units.safetensors")]
    speaker = exp_dir / "speaker" / "config.yaml"
    if speaker.is_file():
        files["speaker_config"] = speaker
        option += sorted(speaker.parent.glob("*.onnx"))
    part = output.with_name(f".{output.name}")
    part = part.with_suffix(".part" + output.suffix)
    pack(files=files, yaml_files=yaml_files, outpath=part, option=option)
    os.replace(part, output)


if __name__ == "__main__":
    sys.exit(main())
