"""A llama2.c model file with its tokenizer -> Hugging Face folder.

The file is a header of seven int32 numbers, the tensors as float32 in a fixed
order, and, in this carrier, the tokenizer: pieces with scores, as SentencePiece
has them. A model of 15 million parameters is a causal language model small enough
for tests, and its tokenizer marks word starts otherwise than SmolLM2's does.

Source: the first ("version 0") export format of llama2.c.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from espnet_taste.weights.convert_gguf import restore_rotary_order

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerBase

_HEADER = struct.Struct("<7i")
_PIECE = struct.Struct("<fi")  # score, length in bytes
_FIRST_BYTE_ID = 3  # after <unk>, <s>, </s> come the 256 single bytes
_WORD_START = "\u2581"


@dataclass(frozen=True)
class Header:
    """Sizes at the head of a llama2.c file, in the order of the file."""

    width: int
    feedforward: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int  # negative if the output projection is not the embedding
    max_positions: int


def convert_llama2c(files: Mapping[str, Path], target: Path) -> None:
    """Convert one llama2.c file that has its tokenizer behind the model.

    Args:
        files: One ``*.data``.
        target: Existing folder; gets configuration, float32 weights, tokenizer.

    Raises:
        ValueError: If the output projection is a tensor of its own, or the file
            ends before the tokenizer does.
    """
    (path,) = [path for name, path in files.items() if name.endswith(".data")]
    data = path.read_bytes()
    header = Header(*_HEADER.unpack_from(data))
    if header.vocab_size < 0:
        raise ValueError(f"{path}: only tied output projections are supported")
    state, end = read_state(data, header)
    pieces = list(read_pieces(data, end, header.vocab_size))
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    build_config(header).save_pretrained(target)
    build_tokenizer(pieces, header.max_positions).save_pretrained(target)


def read_state(data: bytes, header: Header) -> tuple[dict[str, Tensor], int]:
    """Cut the file into tensors under the names of ``LlamaForCausalLM``.

    Returns:
        Tensors by name, float32, and the position behind the model in bytes.
    """
    width, hidden = header.width, header.feedforward
    kv_width = width // header.heads * header.kv_heads
    # One block per kind of tensor, all layers behind each other.
    per_layer = (
        ("input_layernorm", (width,)),
        ("self_attn.q_proj", (width, width)),
        ("self_attn.k_proj", (kv_width, width)),
        ("self_attn.v_proj", (kv_width, width)),
        ("self_attn.o_proj", (width, width)),
        ("post_attention_layernorm", (width,)),
        ("mlp.gate_proj", (hidden, width)),
        ("mlp.down_proj", (width, hidden)),
        ("mlp.up_proj", (hidden, width)),
    )
    heads = {"self_attn.q_proj": header.heads, "self_attn.k_proj": header.kv_heads}
    position = _HEADER.size

    def take(*shape: int) -> Tensor:
        nonlocal position
        values = np.frombuffer(data, "<f4", int(np.prod(shape)), position)
        position += values.nbytes
        return torch.from_numpy(values.reshape(shape).copy())

    state = {"model.embed_tokens.weight": take(header.vocab_size, width)}
    for part, shape in per_layer:
        for layer, weight in enumerate(take(header.layers, *shape)):
            if part in heads:
                weight = restore_rotary_order(weight, heads[part])
            state[f"model.layers.{layer}.{part}.weight"] = weight.contiguous()
    state["model.norm.weight"] = take(width)
    # Sine and cosine tables of the rotary embedding: transformers computes them.
    take(2, header.max_positions, width // header.heads // 2)
    return state, position


def read_pieces(data: bytes, start: int, count: int) -> Iterator[tuple[str, float]]:
    """Read the tokenizer's pieces and scores, in order of their ids.

    Raises:
        ValueError: If the file ends too early.
    """
    position = start + 4  # the first number is the longest piece's length
    for number in range(count):
        content = position + _PIECE.size
        score, length = 0.0, 0
        if content <= len(data):
            score, length = _PIECE.unpack_from(data, position)
        position = content + length
        if position > len(data):
            raise ValueError(f"tokenizer ends after {number} of {count} pieces")
        piece = data[content:position].decode("utf-8")
        if number < _FIRST_BYTE_ID:
            # Written with line breaks around <s> and </s>, for printing.
            yield piece.strip(), score
        elif number < _FIRST_BYTE_ID + 256:
            yield f"<0x{number - _FIRST_BYTE_ID:02X}>", score
        else:
            yield piece.replace(" ", _WORD_START), score


def build_config(header: Header) -> "LlamaConfig":
    """Build the model configuration."""
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=header.vocab_size,
        hidden_size=header.width,
        intermediate_size=header.feedforward,
        num_hidden_layers=header.layers,
        num_attention_heads=header.heads,
        num_key_value_heads=header.kv_heads,
        max_position_embeddings=header.max_positions,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        dtype="float32",
    )


def build_tokenizer(
    pieces: list[tuple[str, float]], max_positions: int
) -> "PreTrainedTokenizerBase":
    """Build a BPE tokenizer that merges the best-scored pieces first.

    SentencePiece joins any two neighbours that make a known piece; so every split
    of a piece into two known ones is a merge, ranked by the score of the piece.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {piece: number for number, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces[_FIRST_BYTE_ID + 256 :]:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocab and right in vocab:
                merges.append((-score, vocab[left], vocab[right], left, right))
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for *_, left, right in sorted(merges)],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_WORD_START), normalizers.Replace(" ", _WORD_START)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_WORD_START, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
