"""Build our unit LM with the sizes that a golden case names."""

from espnet_taste.decoder.unit_lm import UnitLM

# What the case says and our unit LM has no choice of.
FIXED = {
    "text_encoder_activation": "silu",
    "audio_token_encoder_activation": "silu",
    "llm_activation": "relu",
    "layer_norm_eps": 1e-5,
    "static_chunk_size": 1,
    "label_smoothing": 0.0,
}
FLAT = {"heads": "attention_heads", "units": "linear_units", "blocks": "num_blocks"}


def build_unit_lm(config, taste_input_dim):
    """Return a unit LM without dropout, its weights random.

    Args:
        config: Configuration of the case: that of ``speech_decoder``, or one that
            holds a released config under this name, as ``completion`` does.
        taste_input_dim: Width behind the first projection of TASTE.
    """
    sizes = config.get("speech_decoder", config)
    for name, ours in FIXED.items():
        assert sizes.get(name, ours) == ours, f"{name} {sizes[name]}"
    width = sizes["llm_input_size"]
    assert sizes.get("llm_output_size", width) == width
    text, taste, lm = encoders_of(config)
    return UnitLM(
        sizes["speech_token_size"],
        sizes["text_token_size"],
        sizes["audio_encoder_input_size"],
        speaker_dim=sizes["spk_embed_dim"],
        text_dim=sizes["encoder_input_size"],
        taste_input_dim=taste_input_dim,
        width=width,
        heads=lm["heads"],
        text_heads=text["heads"],
        taste_heads=taste["heads"],
        feedforward=lm["units"],
        text_feedforward=text["units"],
        taste_feedforward=taste["units"],
        text_layers=text["blocks"],
        taste_layers=taste["blocks"],
        lm_layers=lm["blocks"],
        dropout=0.0,
        fusion_normalize=normalises(sizes),
    )


def encoders_of(config):
    """Return heads, units and blocks of text encoder, TASTE encoder and unit LM."""
    taste = config["audio_token_encoder"]
    if "text_encoder" in config:
        return config["text_encoder"], taste, config["llm"]
    sizes = config["speech_decoder"]
    text, lm = (
        {name: sizes[f"{part}__{theirs}"] for name, theirs in FLAT.items()}
        for part in ("encoder", "llm")
    )
    return text, taste, lm


def normalises(sizes):
    """Tell whether text and TASTE are normalised before they are fused."""
    fusion = sizes.get("fusion") or sizes["fuse_encoded_audio_text_kwargs"]
    return fusion["normalize"]
