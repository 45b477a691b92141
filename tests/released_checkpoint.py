"""Released checkpoints for tests: the golden one, and configs of other sizes."""

import json

from safetensors.torch import load_file

from espnet_taste.convert.architecture import Backbone

TOWER = "audio_tower.vq.rvq."
UNITS = "speech_decoder."
LLM = "spoken_lm.language_model.base_model.model.model."


def backbone_of(info):
    """Return what the golden JSON says and config.json does not."""
    taste = info["audio_token_encoder"]
    return Backbone(
        info["backbone_whisper_config"],
        taste_heads=taste["heads"],
        taste_feedforward=taste["units"],
        taste_layers=taste["blocks"],
    )


def read_folder(folder):
    """Read all tensors of a folder, by name."""
    state = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
    return state


def released_config(path, keys):
    """Give a small released config the sizes of a list of names and shapes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    codebook = keys[TOWER + "layers.0._codebook.embed"]
    config["audio_tower_config"]["kwargs_for_quantizer"].update(
        dim=keys[TOWER + "project_in.weight"][1],
        codebook_size=codebook[1],
        codebook_dim=codebook[2],
        num_quantizers=count_layers(keys, TOWER + "layers."),
    )
    config["speech_decoder_config"].update(
        text_token_size=keys[UNITS + "text_embedding.weight"][0],
        encoder_input_size=keys[UNITS + "text_embedding.weight"][1],
        audio_encoder_input_size=keys[UNITS + "audio_embed_affine_layer.weight"][1],
        speech_token_size=keys[UNITS + "speech_embedding.weight"][0],
        llm_input_size=keys[UNITS + "speech_embedding.weight"][1],
        llm_output_size=keys[UNITS + "speech_embedding.weight"][1],
        spk_embed_dim=keys[UNITS + "spk_embed_affine_layer.weight"][1],
    )
    for released, encoder in (("llm", "llm"), ("text_encoder", "encoder")):
        layers = f"{UNITS}{released}.encoders."
        heads = keys[layers + "0.self_attn.pos_bias_u"][0]
        linear = keys[layers + "0.feed_forward.w_1.weight"][0]
        config["speech_decoder_config"] |= {
            f"{encoder}__attention_heads": heads,
            f"{encoder}__linear_units": linear,
            f"{encoder}__num_blocks": count_layers(keys, layers),
        }
    attention = LLM + "layers.0.self_attn."
    rank = keys[attention + "q_proj.lora_A.default.weight"][0]
    config["spoken_lm_config"]["kwargs_for_lora"]["lora_r"] = rank
    vocabulary, width = keys[LLM + "embed_tokens.weight"]
    config["text_config"].update(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=keys[LLM + "layers.0.mlp.up_proj.base_layer.weight"][0],
        num_hidden_layers=count_layers(keys, LLM + "layers."),
        head_dim=1,  # shapes know heads and their width only as a product
        num_attention_heads=keys[attention + "q_proj.base_layer.weight"][0],
        num_key_value_heads=keys[attention + "k_proj.base_layer.weight"][0],
    )
    return config


def count_layers(keys, prefix):
    """Return the number of layers behind a prefix."""
    names = (name for name in keys if name.startswith(prefix))
    return 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in names)
