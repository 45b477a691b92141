#!/usr/bin/env python3
"""Pack tokenizer, vocoder and spoken LM into one file that ESPnet's zoo can hold.

An experiment that has no spoken LM is packed without it. The frozen weights
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
OPTIONAL = "slm_"  # may not have been trained


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
    parser.add_argument(
        "--tokenizer_only",
        action="store_true",
        help="leave the spoken LM out, e.g. while it is trained",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    args = get_parser().parse_args(argv)
    try:
        pack_experiment(
            args.exp_dir, args.inference_model, args.output, args.tokenizer_only
        )
    except (OSError, ValueError) as error:
        print(f"pack: {error}", file=sys.stderr)
        return 1
    return 0


def pack_experiment(
    exp_dir: Path,
    model_name: str | None,
    output: Path,
    tokenizer_only: bool = False,
) -> None:
    """Write the pack; it appears under its name only when complete.

    Args:
        exp_dir: Experiment folder of the recipe.
        model_name: Checkpoint of the tokenizer; None for the one that is used.
        output: The pack.
        tokenizer_only: Leave the spoken LM out.

    Raises:
        FileNotFoundError: If a part other than the spoken LM was not trained.
        ValueError: If the experiment does not lie under the working directory, whose
            relative paths the pack holds; if the spoken LM is another tokenizer's.
    """
    from espnet2.main_funcs.pack_funcs import pack

    check_place(exp_dir)
    models = trained_parts(exp_dir, model_name, tokenizer_only)
    check_same_codes(models)
    files = {f"{prefix}model_file": model for prefix, model in models.items()}
    yaml_files = {
        f"{prefix}train_config": exp_dir / PARTS[prefix] / "config.yaml"
        for prefix in models
    }
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


def check_place(exp_dir: Path) -> None:
    """Refuse an experiment that no relative path downwards leads to."""
    if not exp_dir.resolve().is_relative_to(Path.cwd()):
        raise ValueError(
            f"{exp_dir} is outside the working directory; a pack holds relative paths, "
            "so run this from a folder above the experiment"
        )


def trained_parts(
    exp_dir: Path, model_name: str | None, tokenizer_only: bool
) -> dict[str, Path]:
    """Return key prefixes and checkpoints of what is packed; they need not exist."""
    from espnet_taste.weights.digests import trained_file

    models = {prefix: trained_file(exp_dir / name) for prefix, name in PARTS.items()}
    if model_name is not None:
        models[""] = exp_dir / PARTS[""] / model_name
    optional = models[OPTIONAL]
    # ESPnet writes the config when a training starts: it tells nothing.
    if tokenizer_only or not optional.exists():
        why = "--tokenizer_only" if tokenizer_only else f"no {optional}"
        print(f"pack: {why}; the pack holds a tokenizer without spoken LM")
        del models[OPTIONAL]
    return models


def check_same_codes(models: dict[str, Path]) -> None:
    """Refuse a spoken LM that was trained on the codes of another tokenizer.

    Args:
        models: Of ``trained_parts``; without a spoken LM nothing is compared.

    Raises:
        ValueError: If the quantizer in its checkpoint is not that of the tokenizer.
    """
    from espnet_taste.tasks.checkpointing import read_part

    if OPTIONAL not in models:
        return
    own = read_part(models[OPTIONAL], "slm.codebooks.")
    others = read_part(models[""], "quantizer.")
    changed = [
        name for name in own if name not in others or not own[name].equal(others[name])
    ]
    if changed:
        raise ValueError(
            f"{models[OPTIONAL]} was trained on the codes of another tokenizer than "
            f"{models['']} (its quantizer differs in {', '.join(changed[:3])}); train "
            "it on this one's, or give --inference_model or --tokenizer_only"
        )


if __name__ == "__main__":
    sys.exit(main())
