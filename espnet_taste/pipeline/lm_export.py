"""The text LLM of a spoken LM, written so that others can load it."""

from pathlib import Path

import torch

from espnet_taste.convert.folders import new_folder
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.slm.lora import merge_lora, save_lora


def write_adapters(model: SpokenLMInference, folder: Path) -> None:
    """Write a folder of adapters that peft loads by itself.

    Args:
        model: A trained spoken LM.
        folder: Folder to make.

    Raises:
        FileExistsError: If the folder exists and is not empty.
        ValueError: If the spoken LM has no adapters.
    """
    llm = model.slm.llm
    if not model.slm.has_adapters:
        raise ValueError(
            "this spoken LM has no adapters, its LLM itself was trained or rests; "
            "write it whole (merged)"
        )
    for config in llm.peft_config.values():
        # Not the folder on this machine that it was loaded from.
        config.base_model_name_or_path = model.args.llm
    with new_folder(folder) as work:
        save_lora(llm, work)


def write_merged(
    model: SpokenLMInference, folder: Path, dtype: str | None = None
) -> None:
    """Write the LLM with its adapters added, and its tokenizer.

    The sums are made in float32 and rounded once.

    Args:
        model: A trained spoken LM; used up by this.
        folder: Folder to make.
        dtype: Precision of the weights; None for that of the training.

    Raises:
        FileExistsError: If the folder exists and is not empty.
    """
    slm = model.slm
    wanted = _training_dtype(model) if dtype is None else getattr(torch, dtype)
    with new_folder(folder) as work:
        llm = slm.llm.float()
        if slm.has_adapters:
            llm = merge_lora(llm)
        llm.to(wanted).save_pretrained(work)
        model.text.tokenizer.save_pretrained(work)


def _training_dtype(model: SpokenLMInference) -> torch.dtype:
    """Return what the LLM was trained in, which is not what a device holds it in."""
    asked = getattr(model.args, "llm_dtype", None)
    if model.slm.trains_llm or asked is None:
        return model.slm.causal_lm.dtype
    return getattr(torch, asked)
