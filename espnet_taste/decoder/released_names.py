"""Parameter names of the unit LM in released checkpoints.

Their tensors fit ours name for name; only the names differ.

Source: ``MediaTek-Research/Llama-1B-TASTE-V0``, names under ``speech_decoder.``.
"""

MODULES = {
    "text_embedding": "text_embedding",
    "text_encoder": "text_encoder",
    "text_encoder_affine_layer": "text_affine",
    "audio_embed_affine_layer": "taste_projection",
    "audio_token_encoder": "taste_encoder",
    "audio_token_encoder_affine_layer": "taste_affine",
    "fuse_encoded_audio_text_module": "fusion",
    "spk_embed_affine_layer": "speaker_projection",
    "llm_embedding": "special_embedding",
    "speech_embedding": "unit_embedding",
    "llm": "unit_encoder",
    "llm_decoder": "output",
}
INSIDE_ENCODERS = {
    "embed.out.": "input_layer.",
    "encoders.": "layers.",
    ".norm_mha.": ".norm1.",
    ".norm_ff.": ".norm2.",
}
# Parameters that released checkpoints do not have.
OURS_ALONE = ("mask_embedding.weight",)


def from_released(name: str) -> str:
    """Translate a parameter name, without its ``speech_decoder.``, to ours.

    Raises:
        ValueError: If the released model has no such module.
    """
    module, _, rest = name.partition(".")
    if module not in MODULES:
        raise ValueError(f"'{name}' is no parameter of the released speech decoder")
    for theirs, ours in INSIDE_ENCODERS.items():
        rest = rest.replace(theirs, ours)
    return f"{MODULES[module]}.{rest}"
