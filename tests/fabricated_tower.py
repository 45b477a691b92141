"""The tower's case of a fabricated pack; see ``fabricated_pack``."""

from pathlib import Path

import torch
import torch.nn.functional as F
from fabricated_pack import Writer, add_quantizer, build_rvq, mask_of
from golden_case import GoldenCase
from reference_names import DECODER, ENCODER
from released_tower import build_tokenizer
from tiny_whisper import randomise
from torch import Tensor
from transformers import WhisperConfig
from transformers.models.whisper import modeling_whisper

from espnet_taste.convert.architecture import PREFIX_IDS
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.tokenizer.aggregator import build_decoder

CONFIG = {
    "whisper": {
        "d_model": 20,
        "encoder_layers": 4,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "decoder_layers": 1,
        "decoder_attention_heads": 5,
        "decoder_ffn_dim": 14,
        "num_mel_bins": 6,
        "max_source_positions": 9,
        "max_target_positions": 17,
        "vocab_size": 53,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
    },
    "quantizer": {"codebook_dim": 5, "codebook_size": 11, "num_quantizers": 3},
    "taste_width": 20,
    "target_hidden_layer": 2,
    "decoder_prefix_ids": [3, 7, 5],
    "decoder_eos_id": 2,
}
WORDS = {"batch": [[0, 0, 1, 2, 2, 2], [0, 1]], "single": [[0, 0, 0, 0]]}


def write_tower(folder: Path, seed: int) -> None:
    """Encoder, decoder, pooling and quantizer."""
    case = Writer("tower", CONFIG, seed)
    add_tower(case, seed)
    for name, words in WORDS.items():
        write_inputs(case, name, words)
    case.save(folder)
    config = case.info["config"]
    tokenizer = build_tokenizer(
        GoldenCase(folder, "tower"),
        config["target_hidden_layer"],
        config["decoder_prefix_ids"],
    )
    for name in WORDS:
        write_outputs(case, name, tokenizer)
    pooled = case.tensors["out.single.pooled"][0]
    case.output("oneword_pad2.pooled_reference_defect", pooled + 1)
    case.save(folder)


def add_tower(case: Writer, seed: int) -> ResidualVQ:
    """Note random weights, of few tokens only; return the quantizer."""
    config = case.info["config"]
    whisper = WhisperConfig(**config["whisper"], attn_implementation="sdpa")
    encoder = randomise(modeling_whisper.WhisperEncoder(whisper), seed)
    decoder = randomise(build_decoder(whisper), seed + 1)
    case.weights(ENCODER, encoder.state_dict())
    case.weights(DECODER, decoder.state_dict())
    case.some_rows(f"{DECODER}embed_tokens.weight", used_tokens(config))
    sizes = {"dim": config["taste_width"], "decay": 0.9, **config["quantizer"]}
    rvq = build_rvq({"rvq": sizes}, sizes["codebook_size"])
    features = case.randn(60, config["taste_width"])
    rvq.initialise(features, generator=case.random, num_iterations=2)
    add_quantizer(case, rvq)
    return rvq


def used_tokens(config: dict) -> Tensor:
    """Return the prefix, the end and some tokens of text."""
    special = [*config.get("decoder_prefix_ids", PREFIX_IDS)]
    special += [config.get("decoder_eos_id", special[0])]
    return torch.tensor(sorted({*range(10, 30), *special}))


def write_inputs(case: Writer, name: str, words: list[list[int]]) -> None:
    """Note spectrograms and text of some utterances."""
    sizes, lengths = case.info["config"]["whisper"], [*map(len, words)]
    mask = mask_of(lengths)
    padded = [F.pad(torch.tensor(row), (0, mask.size(1) - len(row))) for row in words]
    tokens = case.randint(10, 30, *mask.shape)
    case.input(f"{name}.asr_token_ids", tokens * mask)
    case.input(f"{name}.asr_token_lengths", torch.tensor(lengths))
    case.input(f"{name}.asr_word_ids", torch.stack(padded))
    frames = 2 * sizes["max_source_positions"]
    features = case.randn(len(words), frames, sizes["num_mel_bins"])
    case.input(f"{name}.audio_features", features)


def text_of(case: Writer, name: str) -> list[Tensor]:
    """Return tokens, lengths and words."""
    kinds = ("token_ids", "token_lengths", "word_ids")
    return [case.tensors[f"in.{name}.asr_{kind}"] for kind in kinds]


@torch.no_grad()
def write_outputs(case, name, tokenizer):
    """Note every station of the tower."""
    config = case.info["config"]
    tokens, lengths, words = text_of(case, name)
    states = tokenizer.encoder.encode_log_mel(case.tensors[f"in.{name}.audio_features"])
    layer = config["target_hidden_layer"]
    case.output(f"{name}.encoder_hidden_{layer}", states.values)
    case.output(f"{name}.encoder_final", states.keys)
    prefix = torch.tensor(config["decoder_prefix_ids"]).expand(len(tokens), -1)
    end = torch.full((len(tokens), 1), config["decoder_eos_id"])
    complete = torch.cat([prefix, tokens, end], dim=1)
    aggregator = tokenizer.aggregator
    case.output(f"{name}.decoder_hidden", aggregator.decode(complete, states), 1e-4)
    features = aggregator.token_features(tokens, lengths, states)
    case.output(f"{name}.decoder_features", features, 1e-4)
    out = tokenizer.encode(states, tokens, lengths, words)
    case.output(f"{name}.pooled", out.features, 1e-4)
    case.output(f"{name}.quantized_indices", out.codes)
    case.output(f"{name}.audio_unit_embeds", out.embeds, 1e-4)
    case.output(f"{name}.valid_mask", mask_of(lengths.tolist()))
