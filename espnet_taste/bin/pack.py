#!/usr/bin/env python3
"""Pack tokenizer, vocoder and spoken LM into one file that ESPnet's zoo can hold.

The frozen weights (Whisper, LLM, HiFi-GAN) are not inside: the configs name them with
their sha256, and they are fetched when the file is loaded.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# Key prefix in the pack to folder of the experiment; the first is required.
PARTS = {"": "taste", "vocoder_": "vocoder", "slm_": "slm"}


def get_parser() -> argparse.ArgumentParser:
    """Build the parser; importing this module must have no other effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--exp_dir", type=Path, required=True, help="holds taste, vocoder and slm"
    )
    parser.add_argument("--inference_model", default="valid.loss.best.pth")
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


def pack_experiment(exp_dir: Path, model_name: str, output: Path) -> None:
    """Write the pack; it appears under its name only when complete.

    Raises:
        FileNotFoundError: If a part was not trained.
        ValueError: If the experiment does not lie under the working directory, whose
            relative paths the pack holds.
    """
    from espnet2.main_funcs.pack_funcs import pack

    if not exp_dir.resolve().is_relative_to(Path.cwd()):
        raise ValueError(
            f"{exp_dir} is outside the working directory; a pack holds relative paths, "
            "so run this from a folder above the experiment"
        )
    files, yaml_files = {}, {}
    for prefix, folder in PARTS.items():
        files[f"{prefix}model_file"] = exp_dir / folder / model_name
        yaml_files[f"{prefix}train_config"] = exp_dir / folder / "config.yaml"
    # The files, not the folder: it also holds the recipe's markers.
    option = [exp_dir / "units" / name for name in ("config.json", "units.safetensors")]
    part = output.with_name(f".{output.name}")
    part = part.with_suffix(".part" + output.suffix)
    pack(files=files, yaml_files=yaml_files, outpath=part, option=option)
    os.replace(part, output)


if __name__ == "__main__":
    sys.exit(main())
