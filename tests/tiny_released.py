"""A tiny checkpoint in the released layout, with random weights."""

import json

import torch
from safetensors.torch import save_file

from espnet_taste.convert.architecture import Backbone, read_official
from espnet_taste.convert.plan import make_plan
from espnet_taste.convert.to_ours import unused_of

WIDTH, LLM_WIDTH, LATENT_DIM, VOCABULARY = 16, 8, 3, 20
LM_HEAD = "spoken_lm.language_model.base_model.model.lm_head.weight"
EMBEDDING = "spoken_lm.language_model.base_model.model.model.embed_tokens.weight"
CODEBOOK = "audio_tower.vq.rvq.layers.1._codebook.embed"
CONV = "audio_tower.audio_joint_encoder_segmenter.audio_encoder.encoder.conv1.weight"

WHISPER = {
    "d_model": WIDTH,
    "encoder_layers": 7,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 8,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 8,
    "num_mel_bins": 4,
    "vocab_size": 30,
    "max_source_positions": 10,
    "max_target_positions": 12,
    "activation_function": "gelu",
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
}
BACKBONE = Backbone(WHISPER, taste_feedforward=4, taste_layers=1)
CONFIG = {
    "audio_tower_config": {
        "is_joint_encoder_segmenter": True,
        "kwargs_for_joint_encoder_segmenter": {
            "forward_type": "asr_attn_pooling",
            "is_word_level": True,
            "skip_prefix_idx": 4,
        },
        "kwargs_for_quantizer": {
            "dim": WIDTH,
            "codebook_dim": LATENT_DIM,
            "codebook_size": 5,
            "num_quantizers": 2,
            "decay": 0.99,
            "quantize_dropout": True,
        },
    },
    "speech_decoder_config": {
        "encoder__input_layer": "linear",
        "encoder__macaron_style": False,
        "encoder__use_cnn_module": False,
        "encoder__pos_enc_layer_type": "rel_pos_espnet",
        "encoder__static_chunk_size": 1,
        "encoder__attention_heads": 4,
        "encoder__linear_units": 6,
        "encoder__num_blocks": 1,
        "encoder_input_size": 4,
        "audio_encoder_input_size": WIDTH,
        "llm__input_layer": "linear_legacy",
        "llm__pos_enc_layer_type": "rel_pos_espnet",
        "llm__static_chunk_size": 1,
        "llm__attention_heads": 2,
        "llm__linear_units": 6,
        "llm__num_blocks": 2,
        "llm__dropout_rate": 0.1,
        "llm_input_size": WIDTH,
        "llm_output_size": WIDTH,
        "speech_token_size": 9,
        "text_token_size": 30,
        "spk_embed_dim": 5,
        "fuse_encoded_audio_text_type": "weighted_sum",
        "fuse_encoded_audio_text_kwargs": {
            "normalize": False,
            "use_layer_norm": False,
            "use_trainable_weight": True,
            "weight_init_type": "balance",
        },
    },
    "spoken_lm_config": {
        "audio_embed_conv_mode": "fill_forward",
        "in_llm_module": "weighted_sum",
        "out_llm_module": "continue_latent_linear_last",
        "delay": 1,
        "delay_level": "word",
        "loss_weights": "0.5-0.5",
        "sos_id": 3,
        "use_lora": True,
        "kwargs_for_lora": {
            "lora_r": 2,
            "lora_alpha": 4,
            "lora_dropout": 0.05,
            "lora_target_linear": True,
        },
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": LLM_WIDTH,
        "intermediate_size": 12,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    },
}


def released_state(config=CONFIG, backbone=BACKBONE):
    """Return random weights under released names, half of them bfloat16."""
    random = torch.Generator().manual_seed(0)
    architecture = read_official(config, backbone)
    pairs = make_plan(architecture).pairs
    shapes = {pair.released: pair.released_shape for pair in pairs}
    state = {}
    for name, shape in {**shapes, **unused_of(architecture)}.items():
        is_backbone = "audio_joint" in name or "language_model" in name
        is_half = is_backbone and "lora_" not in name
        dtype = torch.bfloat16 if is_half else torch.float32
        state[name] = torch.randn(shape, generator=random).to(dtype)
    for name in state:
        if name.endswith("initted"):
            state[name] = torch.ones(1)
    return state


def write_checkpoint(folder, state, num_shards=2, config=CONFIG):
    """Write a checkpoint: one file, or shards with their index.

    Args:
        folder: Folder to make.
        state: Name to tensor, dealt out to the shards in turn.
        num_shards: Number of files.
        config: Its ``config.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if num_shards == 1:
        save_file(state, folder / "model.safetensors")
        return folder
    shard_of = {}
    for number in range(num_shards):
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        part = dict(list(state.items())[number::num_shards])
        save_file(part, folder / file)
        shard_of |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": shard_of})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    return folder
