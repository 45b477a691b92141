"""Low-rank adapters on a causal LLM, by plain peft.

peft does the work; here are the choices TASTE makes: every linear layer except the
output layer is adapted, adapters stay in float32 on a bf16 base, and the base is
out of reach of the optimizer and of dropout.

Source: LoRA (arXiv:2106.09685); TASTE (arXiv:2504.07053), spoken LM: rank 64, alpha
128, dropout 0.05.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel


def attach_lora(
    llm: PreTrainedModel,
    *,
    r: int = 64,
    alpha: float = 128,
    dropout: float = 0.05,
    targets: Sequence[str] | None = None,
) -> PeftModel:
    """Freeze an LLM and put trainable adapters on its linear layers.

    Args:
        llm: Causal language model; changed in place.
        r: Rank.
        alpha: The adapters' output is scaled by ``alpha / r``.
        dropout: Dropout on the adapters' input.
        targets: Names (or ends of names) of the layers to adapt; None takes all
            linear layers except the output layer.

    Returns:
        The LLM with adapters; B starts at zero, so it still computes the same.

    Raises:
        ValueError: If the output layer is among the targets, or a target names no
            layer of this LLM.
    """
    if targets is not None and _output_name(llm) in targets:
        raise ValueError(
            f"targets must not name the output layer '{_output_name(llm)}': it "
            "stays frozen, because the text loss is computed in chunks"
        )
    layers = [f".{name}" for name, _ in llm.named_modules()]
    for target in targets or ():  # peft refuses only if none of them is there
        if not any(layer.endswith(f".{target}") for layer in layers):
            raise ValueError(f"targets: this LLM has no layer '{target}'")
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if targets is None else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )
    with _without_peft_warnings():
        return get_peft_model(llm, config)


@contextmanager
def _without_peft_warnings() -> Iterator[None]:
    """Hide what transformers tells peft, which no user of it can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        yield


def _output_name(llm: PreTrainedModel) -> str:
    output = llm.get_output_embeddings()
    names = [name for name, module in llm.named_modules() if module is output]
    return names[0] if names else ""


def freeze(module: nn.Module) -> None:
    """Take a module out of training: no gradients, no dropout."""
    module.requires_grad_(False)
    module.eval()


def unfreeze_llm(llm: PreTrainedModel | PeftModel, text_kl: float) -> None:
    """Let an LLM without adapters be trained, but for its embedding and output layer.

    Args:
        llm: Frozen LLM.
        text_kl: Share of the divergence in the text loss.

    Raises:
        ValueError: If it has adapters, or there is a divergence: no reference is left.
    """
    if isinstance(llm, PeftModel):
        raise ValueError("train_llm trains the LLM itself; set lora: null")
    if text_kl > 0:
        raise ValueError(
            "train_llm leaves no text LLM to compare with; set weights: "
            "{text_kl: 0}, or train adapters (lora)"
        )
    llm.requires_grad_(True)
    # The chunked text loss gives the output layer no gradient, and the embedding is
    # often the same table.
    llm.get_output_embeddings().requires_grad_(False)
    llm.get_input_embeddings().requires_grad_(False)


def set_adapter_mode(llm: nn.Module, training: bool) -> None:
    """Switch the adapters' dropout, and keep the base in eval mode.

    Some LLMs (GPT-2) have dropout of their own; on a frozen base it would only
    blur what the adapters and the reference distribution see.

    Args:
        llm: LLM with or without adapters.
        training: True for the train mode of the adapters.
    """
    llm.eval()
    for module in llm.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout.train(training)


@contextmanager
def adapters_disabled(llm: nn.Module) -> Iterator[None]:
    """Run the base LLM inside the block: the same weights without adapters.

    Args:
        llm: LLM with or without adapters.

    Yields:
        Nothing; the LLM computes as the base until the block ends.
    """
    if not isinstance(llm, PeftModel):
        yield
        return
    # peft's own context switches requires_grad too and leaves it True behind.
    trainable = {parameter: parameter.requires_grad for parameter in llm.parameters()}
    llm.base_model.disable_adapter_layers()
    try:
        yield
    finally:
        llm.base_model.enable_adapter_layers()
        for parameter, flag in trainable.items():
            parameter.requires_grad_(flag)


def save_lora(llm: PeftModel, folder: Path) -> None:
    """Write the adapters as a folder that plain peft can load.

    Args:
        llm: LLM with adapters.
        folder: Where to write ``adapter_config.json`` and the weights.
    """
    # "auto" would ask the model hub whether the vocabulary was changed.
    llm.save_pretrained(str(folder), save_embedding_layers=False)


def load_lora(
    llm: PreTrainedModel, folder: Path, *, trainable: bool = False
) -> PeftModel:
    """Put saved adapters on an LLM.

    Args:
        llm: The base the adapters were trained on; changed in place.
        folder: Folder written by ``save_lora`` or by peft.
        trainable: Whether the adapters are to be trained further.

    Returns:
        The LLM with adapters.

    Raises:
        FileNotFoundError: If the folder holds no adapters.
    """
    if not (Path(folder) / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{folder}: no adapter_config.json; not a peft folder")
    with _without_peft_warnings():
        return PeftModel.from_pretrained(llm, str(folder), is_trainable=trainable)


def merge_lora(llm: PeftModel) -> PreTrainedModel:
    """Add the adapters to the base weights and drop them.

    Equal to the adapted LLM in float32; a bf16 base is rounded by the addition.

    Args:
        llm: LLM with adapters; used up by this.

    Returns:
        The plain LLM.
    """
    return llm.merge_and_unload()


def adapt(
    llm: PreTrainedModel | PeftModel, lora: Mapping[str, Any] | None
) -> PreTrainedModel | PeftModel:
    """Freeze an LLM and give it adapters, if they are asked for.

    Args:
        llm: The LLM, or one that has adapters already.
        lora: Options of ``attach_lora``; None adds none.

    Raises:
        ValueError: If it has adapters and is asked for more.
    """
    if isinstance(llm, PeftModel):
        if lora is not None:
            raise ValueError("the LLM has adapters already; pass lora=None")
        return llm
    freeze(llm)
    return llm if lora is None else attach_lora(llm, **lora)
