"""Our modules without weights, by an architecture: which tensors there must be.

Symbols: Q codebooks.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, WhisperConfig
from transformers.models.whisper import modeling_whisper

from espnet_taste.convert.architecture import Architecture
from espnet_taste.convert.names import (
    CODEBOOKS,
    LLM,
    OURS_ALONE,
    QUANTIZER,
    SLM,
    TASTE,
    WHISPER,
    Place,
)
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.slm.losses import LossWeights
from espnet_taste.slm.model import SpokenLM
from espnet_taste.tokenizer.aggregator import WhisperAggregator, build_decoder
from espnet_taste.tokenizer.quantizer import RvqQuantizer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Modules:
    """Parts of a model; their weights are on the meta device until loaded."""

    encoder: modeling_whisper.WhisperEncoder
    aggregator: WhisperAggregator
    quantizer: RvqQuantizer
    unit_lm: UnitLM
    llm: LlamaForCausalLM

    @property
    def tokenizer_part(self) -> nn.Module:
        """What the tokenizer's checkpoint holds, under its names."""
        part = nn.ModuleDict(
            {
                "aggregator": self.aggregator,
                "quantizer": self.quantizer,
                "decoder": self.unit_lm,
            }
        )
        part.register_buffer("num_steps", torch.zeros((), dtype=torch.long))
        return part


def build_modules(architecture: Architecture) -> Modules:
    """Build all parts but the spoken LM's own; no weight takes memory.

    Args:
        architecture: Sizes and options.
    """
    options = architecture.tokenizer
    whisper = WhisperConfig(**architecture.whisper, attn_implementation="sdpa")
    # On the meta device are parameters and what checkpoints hold. Tables that are
    # computed (mel filters, prefix) belong to the wrappers, which stay outside.
    with torch.device("meta"):
        encoder = modeling_whisper.WhisperEncoder(whisper)
        decoder = build_decoder(whisper)
        quantizer = RvqQuantizer(**options["quantizer_conf"])
        unit_lm = UnitLM(**options["decoder_conf"])
        llm = LlamaForCausalLM(LlamaConfig(**architecture.llm))
    aggregator = WhisperAggregator.from_module(
        decoder, options["prefix_ids"], value_identity=False
    )
    return Modules(encoder, aggregator, quantizer, unit_lm, llm)


def build_spoken_lm(architecture: Architecture, modules: Modules) -> SpokenLM:
    """Build the spoken LM around LLM and quantizer; its own weights are fresh.

    Args:
        architecture: Sizes and options.
        modules: Parts, which are taken over and frozen.
    """
    conf = dict(architecture.slm["slm_conf"])
    weights = LossWeights(**conf.pop("weights"))
    return SpokenLM(modules.llm, modules.quantizer, weights=weights, **conf)


def expected_shapes(architecture: Architecture) -> dict[Place, Shape]:
    """Return every tensor of our layout but the vocoder's, and its shape.

    Args:
        architecture: Sizes and options.
    """
    modules = build_modules(architecture)
    parts = {
        (WHISPER, "model.encoder."): modules.encoder,
        (TASTE, ""): modules.tokenizer_part,
        (LLM, ""): modules.llm,
    }
    shapes = _shapes_of(parts)
    with torch.device("meta"):
        spoken_lm = build_spoken_lm(architecture, modules)
    for place, shape in _shapes_of({(SLM, "slm."): spoken_lm}).items():
        if is_own_of_slm(place.name.removeprefix("slm.")):
            shapes[place] = shape
    return shapes


def is_own_of_slm(name: str) -> bool:
    """Tell whether a tensor of ``SpokenLM`` is in its part, not in the LLM's."""
    return not name.startswith("llm.") or ".lora_" in name


def is_ours_alone(place: Place) -> bool:
    """Tell whether a tensor has no counterpart in the released model."""
    return (place.part, place.name) in OURS_ALONE


def copied_from(place: Place) -> Place | None:
    """Return the tensor of the tokenizer that this one is a copy of, if it is one."""
    if place.part == SLM and place.name.startswith(CODEBOOKS):
        return Place(TASTE, QUANTIZER + place.name.removeprefix(CODEBOOKS))
    return None


def _shapes_of(parts: dict[tuple[str, str], nn.Module]) -> dict[Place, Shape]:
    return {
        Place(part, prefix + name): tuple(tensor.shape)
        for (part, prefix), module in parts.items()
        for name, tensor in module.state_dict().items()
    }
