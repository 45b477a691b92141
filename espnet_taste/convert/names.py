"""The one table of tensor names, read in both directions.

A rule is a released name, the part of our layout that the tensor goes to, and its name
there. ``{n}`` stands for a number, ``{name}`` for one piece between dots, ``{path}``
and ``{rest}`` for anything; both sides have the same. The first rule that fits is
taken, so special rules stand before general ones.

Whether a name exists at all is not decided here: ``modules.py`` asks our modules.

Source: released checkpoint ``MediaTek-Research/Llama-1B-TASTE-V0``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

# Parts of our layout, each a folder.
WHISPER, TASTE, LLM, SLM, VOCODER = "whisper", "taste", "llm", "slm", "vocoder"
# The speaker encoder: no tensors of ours, a file that goes along as it is.
SPEAKER = "speaker"

_ENCODER = "audio_tower.audio_joint_encoder_segmenter.audio_encoder.encoder."
_DECODER = "audio_tower.audio_joint_encoder_segmenter.audio_segmenter.decoder."
_RVQ = "audio_tower.vq.rvq."
_CODEBOOK = _RVQ + "layers.{n}._codebook."
_LLM = "spoken_lm.language_model.base_model.model."

# What the released quantizer has and never uses.
UNUSED = _RVQ + "mlps."
WHY_UNUSED = "the released model never uses it"
# What only we have, by its part, and why; starts at zero.
OURS_ALONE = {
    (TASTE, "num_steps"): "step count of our trainer",
    (TASTE, "quantizer.rvq.num_steps"): "step count of our trainer",
    (TASTE, "decoder.mask_embedding.weight"): "the released model masks no units",
}
# Our spoken LM carries the tokenizer's quantizer with it.
QUANTIZER = "quantizer."
CODEBOOKS = "slm.codebooks."


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in our layout."""

    part: str
    name: str

    def __str__(self) -> str:
        """Return ``part/name``."""
        return f"{self.part}/{self.name}"

    @property
    def is_counter(self) -> bool:
        """Whether it is an integer, not a weight."""
        return self.name.endswith("num_steps")


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    released: str
    part: str
    ours: str
    # The released codebooks carry a leading axis of one.
    has_extra_axis: bool = False


def _codebook_rules() -> Iterator[Rule]:
    buffers = {
        "embed": "embed",
        "embed_avg": "embed_sum",
        "cluster_size": "count",
        "initted": "initialised",
    }
    for released, ours in buffers.items():
        target = "quantizer.rvq.codebooks.{n}." + ours
        yield Rule(_CODEBOOK + released, TASTE, target, has_extra_axis=True)


def _unit_lm_rules() -> Iterator[Rule]:
    encoders = {
        "text_encoder": "text_encoder",
        "audio_token_encoder": "taste_encoder",
        "llm": "unit_encoder",
    }
    for released, ours in encoders.items():
        source, target = f"speech_decoder.{released}.", f"decoder.{ours}."
        norms = {} if released == "llm" else {"norm_mha": "norm1", "norm_ff": "norm2"}
        pieces = {
            "embed.out.{rest}": "input_layer.{rest}",
            **{f"encoders.{{n}}.{k}.{{rest}}": f"layers.{{n}}.{v}.{{rest}}"
               for k, v in norms.items()},
            "encoders.{rest}": "layers.{rest}",
            "after_norm.{rest}": "after_norm.{rest}",
        }  # fmt: skip
        for theirs, our_piece in pieces.items():
            yield Rule(source + theirs, TASTE, target + our_piece)
    modules = {
        "text_embedding": "text_embedding",
        "text_encoder_affine_layer": "text_affine",
        "audio_embed_affine_layer": "taste_projection",
        "audio_token_encoder_affine_layer": "taste_affine",
        "fuse_encoded_audio_text_module": "fusion",
        "spk_embed_affine_layer": "speaker_projection",
        "llm_embedding": "special_embedding",
        "speech_embedding": "unit_embedding",
        "llm_decoder": "output",
    }
    for released, ours in modules.items():
        source, target = f"speech_decoder.{released}.", f"decoder.{ours}."
        yield Rule(source + "{rest}", TASTE, target + "{rest}")


def _spoken_lm_rules() -> Iterator[Rule]:
    adapted = "{path}.lora_{rest}"
    yield Rule(_LLM + adapted, SLM, "slm.llm.base_model.model." + adapted)
    for block in ("self_attn", "mlp"):
        layer = f"model.layers.{{n}}.{block}.{{name}}_proj."
        yield Rule(_LLM + layer + "base_layer.{rest}", LLM, layer + "{rest}")
    yield Rule(_LLM + "{rest}", LLM, "{rest}")
    modules = {
        "fuse_for_bridge_in_llm.weights": "fusion.weights",
        "fuse_for_bridge_in_llm.linear.{rest}": "taste_projection.{rest}",
        "extract_for_bridge_out_llm.fc_mu.{rest}": "head.latent.mu.{rest}",
        "extract_for_bridge_out_llm.b_logvar": "head.latent.logvar",
        "extract_for_bridge_out_llm.linear.{rest}": "head.linear.{rest}",
        "pad_text_unit_embed": "pad_text",
        "pad_audio_unit_embed": "pad_taste",
    }
    for released, ours in modules.items():
        yield Rule("spoken_lm." + released, SLM, "slm." + ours)


TABLE = (
    Rule(_ENCODER + "{rest}", WHISPER, "model.encoder.{rest}"),
    Rule(_DECODER + "{rest}", TASTE, "aggregator.decoder.{rest}"),
    *_codebook_rules(),
    Rule(_RVQ + "project_{rest}", TASTE, "quantizer.rvq.project_{rest}"),
    *_unit_lm_rules(),
    *_spoken_lm_rules(),
    Rule("flow.{rest}", VOCODER, "flow.{rest}"),
    Rule("hift.{rest}", VOCODER, "hift.{rest}"),
)


def to_ours(released: str) -> tuple[Place, Rule]:
    """Translate a released name.

    Returns:
        Its place in our layout, and the rule that says so.

    Raises:
        KeyError: If no rule fits.
    """
    for rule in TABLE:
        found = _pattern(rule.released).fullmatch(released)
        if found:
            return Place(rule.part, rule.ours.format(**found.groupdict())), rule
    raise KeyError(released)


def to_released(place: Place) -> tuple[str, Rule]:
    """Translate a name of ours.

    Returns:
        The released name, and the rule that says so.

    Raises:
        KeyError: If no rule fits.
    """
    for rule in TABLE:
        found = _pattern(rule.ours).fullmatch(place.name)
        if found and rule.part == place.part:
            return rule.released.format(**found.groupdict()), rule
    raise KeyError(str(place))


def unused_shapes(num_codebooks: int, codebook_dim: int) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of what the released quantizer has and never uses.

    Args:
        num_codebooks: Q.
        codebook_dim: d.
    """
    square, vector = (codebook_dim, codebook_dim), (codebook_dim,)
    shapes: dict[str, tuple[int, ...]] = {}
    for number in range(num_codebooks - 1):
        mlp = f"{UNUSED}{number}."
        shapes[mlp + "proj_in.weight"] = (codebook_dim, 2 * codebook_dim)
        shapes[mlp + "proj_in.bias"] = vector
        for layer in range(4):
            for linear in (0, 2):
                name = f"{mlp}layers.{layer}.{linear}."
                shapes[name + "weight"], shapes[name + "bias"] = square, vector
    return shapes


_PIECES = {"n": r"\d+", "name": r"[^.]+", "path": r".+?", "rest": r".+"}


@lru_cache(maxsize=None)
def _pattern(template: str) -> re.Pattern:
    pieces = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            f"(?P<{piece}>{_PIECES[piece]})" if number % 2 else re.escape(piece)
            for number, piece in enumerate(pieces)
        )
    )
