"""Loading a Whisper checkpoint, once and completely."""

import torch
from transformers import PreTrainedModel, WhisperConfig, WhisperModel

from espnet_taste.weights import resolve
from espnet_taste.weights.strict import naming_damage

# OpenAI's rule: the vocabulary of the English-only models is one id shorter.
MULTILINGUAL_VOCAB_SIZE = 51865


def load_whisper(model: str, part: str = "") -> WhisperModel:
    """Load encoder and decoder of a Whisper checkpoint.

    Args:
        model: Name such as ``openai/whisper-tiny.en``, or a folder.
        part: ``"encoder"`` or ``"decoder"`` if the other one is not used; it need not
            be in the checkpoint and is random then.

    Returns:
        The model in float32 and evaluation mode, attention by SDPA.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If the folder lacks weights of the model.
    """
    folder = resolve(model)
    with naming_damage(folder):
        whisper, report = WhisperModel.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    # transformers fills what is missing with random numbers.
    missing = sorted(n for n in report["missing_keys"] if n.startswith(part))
    if missing:
        raise ValueError(
            f"{folder} is not a complete Whisper checkpoint: {len(missing)} tensors "
            f"are missing, e.g. {missing[0]}"
        )
    return whisper.eval()


def load_config(model: str) -> WhisperConfig:
    """Read the sizes of a checkpoint, by name or folder."""
    return WhisperConfig.from_pretrained(resolve(model))


def require_sdpa(module: PreTrainedModel) -> None:
    """Refuse a module that would misread our masks, or run without causal mask.

    Raises:
        ValueError: If its attention is not "sdpa".
    """
    attention = module.config._attn_implementation
    if attention != "sdpa":
        raise ValueError(
            f"{type(module).__name__} must be built with attn_implementation='sdpa', "
            f"this one has '{attention}'"
        )


def is_multilingual(vocab_size: int) -> bool:
    """Tell by its number of ids whether a checkpoint knows language tokens."""
    return vocab_size >= MULTILINGUAL_VOCAB_SIZE
