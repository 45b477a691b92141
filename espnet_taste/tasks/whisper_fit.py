"""Whether the trainings of a tokenizer fit a Whisper, asked before any of them begins.

Widths and text table of the YAML files follow Whisper, which is an option of its own.
A misfit would otherwise show where a model is built, hours after the units were begun.
"""

from pathlib import Path

from espnet_taste.tasks.building import read_config
from espnet_taste.tokenizer.whisper import is_multilingual, load_config

# Options that are as wide as the states of Whisper's decoder.
WIDTHS = (("decoder_conf", "taste_dim"), ("quantizer_conf", "input_dim"))


def find_misfits(config: Path, whisper: str) -> list[str]:
    """Name the options of a tokenizer's training that do not fit a Whisper.

    Args:
        config: Training YAML.
        whisper: Name or folder of the Whisper.

    Returns:
        One line an option, with the value that it needs; empty if all fit.

    Raises:
        FileNotFoundError: If the YAML file or a Whisper cannot be had.
        ValueError: If the file is not a mapping.
    """
    options = vars(read_config(config))
    sizes = load_config(whisper)
    lines = []
    for section, name in WIDTHS:
        value = (options.get(section) or {}).get(name)
        if value is not None and value != sizes.d_model:
            lines.append(f"{config}: {section}: {name} is {value}, not {sizes.d_model}")
    table = (options.get("decoder_conf") or {}).get("text_embedding")
    if table is not None and not _has_tokens(table, whisper):
        lines.append(
            f"{config}: decoder_conf: text_embedding is {table}, which has other "
            f"tokens; set it to {whisper}"
        )
    return lines


def _has_tokens(table: str, whisper: str) -> bool:
    """Tell whether the token table of one Whisper serves the text of another."""
    has, needed = (load_config(name).vocab_size for name in (table, whisper))
    return has >= needed and is_multilingual(has) == is_multilingual(needed)
