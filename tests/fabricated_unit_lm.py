"""The unit LM's case of a fabricated pack; see ``fabricated_pack``."""

from pathlib import Path

import torch
import torch.nn.functional as F
from fabricated_pack import Writer
from released_unit_lm import build_unit_lm
from torch import Tensor

from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import unit_bounds
from espnet_taste.decoder.layout import NUM_SPECIAL, UnitLMLayout, whole_rows
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.types import IGNORE

# Start of our names to the released ones; written down again, as a witness.
RELEASED = {
    "text_embedding.": "text_embedding.",
    "text_encoder.": "text_encoder.",
    "text_affine.": "text_encoder_affine_layer.",
    "taste_projection.": "audio_embed_affine_layer.",
    "taste_encoder.": "audio_token_encoder.",
    "taste_affine.": "audio_token_encoder_affine_layer.",
    "fusion.": "fuse_encoded_audio_text_module.",
    "speaker_projection.": "spk_embed_affine_layer.",
    "special_embedding.": "llm_embedding.",
    "unit_embedding.": "speech_embedding.",
    "unit_encoder.": "llm.",
    "output.": "llm_decoder.",
}
INSIDE = {".input_layer.": ".embed.out.", ".layers.": ".encoders."}
NORMS = {".norm1.": ".norm_mha.", ".norm2.": ".norm_ff."}
GRADIENTS = {
    "fusion_weights": "fusion.weights",
    "llm_embedding": "special_embedding.weight",
    "llm_layer1_pos_bias_v": "unit_encoder.layers.1.self_attn.pos_bias_v",
    "text_encoder_input_weight": "text_encoder.input_layer.0.weight",
    "speech_embedding": "unit_embedding.weight",
}
TASTE_INPUT_DIM = 14


def released_name(name: str) -> str:
    """Turn our name of a tensor into the released one."""
    ((ours, theirs),) = [i for i in RELEASED.items() if name.startswith(i[0])]
    name = theirs + name.removeprefix(ours)
    for ours, theirs in (INSIDE if theirs == "llm." else INSIDE | NORMS).items():
        name = name.replace(ours, theirs)
    return "speech_decoder." + name


def write_unit_lm(folder: Path, seed: int) -> None:
    """Logits, loss, gradients, cached decoding, generation."""
    config = {
        "text_token_size": 40,
        "encoder_input_size": 10,
        "audio_encoder_input_size": 11,
        "llm_input_size": 18,
        "speech_token_size": 23,
        "spk_embed_dim": 7,
        "text_encoder": {"heads": 9, "units": 16, "blocks": 1},
        "audio_token_encoder": {"heads": 2, "units": 20, "blocks": 1},
        "llm": {"heads": 3, "units": 24, "blocks": 2},
        "fusion": {"normalize": False},
    }
    case = Writer("speech_decoder", config, seed)
    model = build(config, seed).eval()
    for name, value in model.state_dict().items():
        if not name.startswith("mask_embedding."):
            case.tensors[f"state.{released_name(name)}"] = value.clone()
    layout, condition = write_inputs(case, model)
    write_stations(case, model, layout, condition)
    write_incremental(case, model, condition)
    write_gradients(case, model, layout, condition)
    write_greedy(case, model.eval())
    case.save(folder)


def build(config: dict, seed: int) -> UnitLM:
    """Return a unit LM with random weights."""
    torch.manual_seed(seed)
    model = build_unit_lm(config, TASTE_INPUT_DIM)
    with torch.no_grad():  # or generation would not end within its bounds
        model.output.bias[-1] += 2.0
    return model


def write_inputs(case: Writer, model: UnitLM) -> tuple[UnitLMLayout, list[Tensor]]:
    """Note a batch and return its layout and condition."""
    config = case.info["config"]
    lengths = case.input("asr_token_lengths", torch.tensor([5, 3]))
    unit_lengths = case.input("speech_token_lengths", torch.tensor([8, 9]))
    tokens = case.randint(1, config["text_token_size"], 2, 5)
    tokens = case.input("asr_token_ids", tokens)
    units = case.randint(0, model.num_units, 2, 9)
    case.input("speech_token_ids", units)
    taste = case.randn(2, 5, config["audio_encoder_input_size"])
    taste = case.input("taste_embeds", taste)
    speaker = case.input("speaker_embeds", case.randn(2, config["spk_embed_dim"]))
    layout = whole_rows(
        lengths, units, unit_lengths, num_tokens=5, num_units=model.num_units
    )
    return layout, [tokens, taste, speaker]


@torch.no_grad()
def write_stations(case, model, layout, condition):
    """Note every station of the forward pass."""
    tokens, taste, speaker = condition
    text, audio = model.encode_text(tokens, layout), model.encode_taste(taste, layout)
    fused = model.fusion(audio, text)
    inputs = model.gather_inputs(fused, speaker, layout)
    case.output("text_encoded", text)
    case.output("taste_encoded", audio)
    case.output("fused", fused)
    case.output("lm_input", inputs)
    case.output("lm_hidden", model.encode_units(inputs, layout))
    case.output("lm_lengths", (layout.lm_rows != IGNORE).sum(1))
    for prefix, embeds in (("", taste), ("text_only.", None)):
        case.output(f"{prefix}logits", model(tokens, embeds, speaker, layout))
        case.output(f"{prefix}labels", layout.labels)


@torch.no_grad()
def write_incremental(case, model, condition):
    """Note what decoding unit by unit gives, from one pass over everything."""
    length = int(case.tensors["in.asr_token_lengths"][0])
    count = int(case.tensors["in.speech_token_lengths"][0])
    tokens, taste = (value[:1, :length] for value in condition[:2])
    layout = whole_rows(
        torch.tensor([length]),
        case.tensors["in.speech_token_ids"][:1, :count],
        torch.tensor([count]),
        num_tokens=length,
        num_units=model.num_units,
    )
    fused = model.encode_condition(tokens, taste, layout)
    inputs = model.gather_inputs(fused, condition[2][:1], layout)
    hidden = model.encode_units(inputs, layout)[0]
    prompt = NUM_SPECIAL + length
    case.output("incremental.prompt", inputs[0, :prompt])
    case.output("incremental.full_hidden", hidden)
    last = hidden[prompt - 1 :]
    case.output("incremental.hidden_last", last)
    case.output("incremental.log_probs", model.output(last).log_softmax(-1), 1e-4)


def write_gradients(case, model, layout, condition):
    """Note losses, and gradients of the one with TASTE."""
    tokens, taste, speaker = condition
    taste = taste.clone().requires_grad_()
    for prefix, embeds in (("text_only.", None), ("", taste)):
        model.zero_grad()
        logits = model.train()(tokens, embeds, speaker, layout)
        labels = layout.labels.flatten()
        loss = F.cross_entropy(logits.flatten(0, 1), labels, ignore_index=IGNORE)
        case.output(f"{prefix}loss", loss)
    loss.backward()
    for name, ours in GRADIENTS.items():
        case.output(f"grad.{name}", model.get_parameter(ours).grad)
    case.output("grad.taste_embeds", taste.grad)


def write_greedy(case, model):
    """Note what is generated with and without TASTE."""
    config, length = case.info["config"], 2
    tokens = case.randint(1, config["text_token_size"], 1, length)
    taste = case.randn(1, length, config["audio_encoder_input_size"])
    case.input("greedy.asr_token_ids", tokens)
    case.input("greedy.taste_embeds", taste)
    speaker = case.input(
        "greedy.speaker_embeds", case.randn(1, config["spk_embed_dim"])
    )
    lengths = case.input("greedy.asr_token_lengths", torch.tensor([length]))
    sampling = UnitSampling(top_k=1)
    for name, embeds in (("greedy", taste), ("greedy_text_only", None)):
        made = model.generate(tokens, lengths, embeds, speaker, sampling=sampling)
        case.output(f"{name}.units", made.units[0])
        for kind, bound in zip(("min_len", "max_len"), unit_bounds(lengths, sampling)):
            case.output(f"{name}.{kind}", bound[0])
