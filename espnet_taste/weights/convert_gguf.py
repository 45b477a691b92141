"""A Llama-type GGUF file -> Hugging Face folder in bfloat16.

Three things differ between the formats. GGUF stores 4-bit blocks: they are widened,
which does not bring back what quantisation lost. It stores query and key rows in
the order of its own rotary embedding: they are put back. It stores the tokenizer
as lists: a byte-level BPE tokenizer is rebuilt from them.

Source: GGUF format, version 3; rotary orders of llama.cpp and transformers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from espnet_taste.packages import MissingPackageError

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerBase

_CONTROL = 3  # token type of control tokens, e.g. <|im_start|>
# How text is cut before BPE: SmolLM cuts every digit off, then cuts as GPT-2 does.
_CUTTING_RULE = "smollm"

_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert_llama_gguf(files: Mapping[str, Path], target: Path) -> None:
    """Convert one GGUF file of the Llama architecture.

    Args:
        files: One ``*.gguf``.
        target: Existing folder; gets configuration, bfloat16 weights, tokenizer
            with chat template, and generation settings.

    Raises:
        ValueError: If it is not a Llama with a byte-level BPE tokenizer.
        MissingPackageError: If the ``gguf`` package is not installed.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingPackageError("GGUF files need: pip install gguf") from error
    from transformers import GenerationConfig

    (path,) = [path for name, path in files.items() if name.endswith(".gguf")]
    reader = GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    kinds = fields.get("general.architecture"), fields.get("tokenizer.ggml.model")
    if kinds != ("llama", "gpt2"):
        raise ValueError(
            f"{path}: expected architecture 'llama', tokenizer 'gpt2'; found {kinds}"
        )
    state = read_state(reader.tensors, fields)
    config = build_config(fields, is_tied="lm_head.weight" not in state)
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    build_tokenizer(fields).save_pretrained(target)
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(target)


def build_config(fields: Mapping[str, Any], *, is_tied: bool) -> "LlamaConfig":
    """Build the model configuration from the file's metadata."""
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=fields["llama.vocab_size"],
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        max_position_embeddings=fields["llama.context_length"],
        # The file keeps a float32; its shortest decimal is the number meant.
        rms_norm_eps=float(str(np.float32(_epsilon(fields)))),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": fields["llama.rope.freq_base"],
        },
        bos_token_id=fields["tokenizer.ggml.bos_token_id"],
        eos_token_id=fields["tokenizer.ggml.eos_token_id"],
        pad_token_id=fields["tokenizer.ggml.padding_token_id"],
        tie_word_embeddings=is_tied,
        dtype="bfloat16",
    )


def _epsilon(fields: Mapping[str, Any]) -> float:
    return fields["llama.attention.layer_norm_rms_epsilon"]


def read_state(tensors: Iterable[Any], fields: Mapping[str, Any]) -> dict[str, Tensor]:
    """Widen all tensors to bfloat16 under the names of ``LlamaForCausalLM``.

    Args:
        tensors: ``GGUFReader.tensors``, with name, data and quantisation each.
        fields: Metadata of the file by key.

    Returns:
        Tensors by name, bfloat16.

    Raises:
        ValueError: If a tensor has an unknown name.
    """
    from gguf import dequantize

    heads = {
        "attn_q": fields["llama.attention.head_count"],
        "attn_k": fields["llama.attention.head_count_kv"],
    }
    state = {}
    for tensor in tensors:
        name, kind = translate_name(tensor.name)
        # A copy, because plain tensors are views of the read-only file.
        value = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if kind in heads:
            value = restore_rotary_order(value, heads[kind])
        state[name] = value.to(torch.bfloat16).contiguous()
    return state


def translate_name(name: str) -> tuple[str, str]:
    """Return the Hugging Face name of a GGUF tensor, and which part of a layer it is.

    Raises:
        ValueError: If the name is unknown.
    """
    if name in _TOP_NAMES:
        return _TOP_NAMES[name], ""
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER_NAMES:
        return f"model.layers.{parts[1]}.{_LAYER_NAMES[parts[2]]}.{parts[3]}", parts[2]
    raise ValueError(f"unknown tensor '{name}' in a Llama GGUF file")


def restore_rotary_order(weight: Tensor, heads: int) -> Tensor:
    """Undo the row order that GGUF gives query and key projections.

    GGUF keeps the two values that rotate together side by side (0, h, 1, h + 1, ...
    with h half the head); transformers keeps them half a head apart.

    Args:
        weight: Projection, (heads * head size, D).
        heads: Attention heads of this projection.

    Returns:
        The same rows, (heads * head size, D), in the order of transformers.
    """
    rows, width = weight.shape
    paired = weight.view(heads, rows // heads // 2, 2, width)
    return paired.transpose(1, 2).reshape(rows, width)


def build_tokenizer(fields: Mapping[str, Any]) -> "PreTrainedTokenizerBase":
    """Rebuild the byte-level BPE tokenizer, its special tokens and chat template.

    Raises:
        ValueError: If the rule that cuts text before BPE is not known.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rule = fields.get("tokenizer.ggml.pre")
    if rule != _CUTTING_RULE:
        raise ValueError(f"unknown text cutting rule '{rule}' in a GGUF tokenizer")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds) if kind == _CONTROL]
    tokenizer.add_special_tokens(control)

    def token_of(role: str) -> str:
        return tokens[fields[f"tokenizer.ggml.{role}_token_id"]]

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=token_of("bos"),
        eos_token=token_of("eos"),
        unk_token=token_of("unknown"),
        pad_token=token_of("padding"),
        extra_special_tokens=control,
        chat_template=fields.get("tokenizer.chat_template"),
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
