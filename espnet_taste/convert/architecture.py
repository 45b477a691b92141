"""Sizes and options of a released model, as its config has them and as ours do.

The released ``config.json`` lacks the Whisper that the tokenizer was cut from and the
constants of the TASTE encoder: those are ``Backbone``. What it says that we do not
implement is refused, all of it at once.

Source: config of ``MediaTek-Research/Llama-1B-TASTE-V0`` and the code that reads it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from espnet_taste.convert.errors import UnknownArchitecture
from espnet_taste.convert.names import LLM, SLM, TASTE, WHISPER

# Whisper large v3's encoder with the two decoder layers of distil-large-v3.
DISTIL_LARGE_V3 = {
    "d_model": 1280,
    "encoder_layers": 32,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
    "decoder_layers": 2,
    "decoder_attention_heads": 20,
    "decoder_ffn_dim": 5120,
    "num_mel_bins": 128,
    "vocab_size": 51866,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "activation_function": "gelu",
    "pad_token_id": 50256,
    "bos_token_id": 50257,
    "eos_token_id": 50257,
    "decoder_start_token_id": 50258,
}
# <|startoftranscript|> <|en|> <|transcribe|> <|notimestamps|> of a large-v3 vocabulary;
# the released code has these numbers, not the tokens.
PREFIX_IDS = (50258, 50259, 50360, 50364)
VALUE_LAYER = 6
UNIT_RATE_HZ = 50.0
HEADS = {"continue_latent_linear_last": "latent", "linear_last": "linear"}
FUSION_INITS = ("balance", "zero_audio")

_TOWER = "audio_tower_config"
_JOINT = _TOWER + ".kwargs_for_joint_encoder_segmenter"
_UNITS = "speech_decoder_config"
_SLM = "spoken_lm_config"
# Key of the config to the values that we implement.
_IMPLEMENTED: dict[str, tuple] = {
    f"{_TOWER}.is_joint_encoder_segmenter": (True,),
    f"{_JOINT}.forward_type": ("asr_attn_pooling",),
    f"{_JOINT}.is_word_level": (True,),
    f"{_JOINT}.skip_prefix_idx": (len(PREFIX_IDS),),
    # None, here and below: absent, then it is the constant of the released code.
    f"{_JOINT}.target_hidden_layer": (VALUE_LAYER, None),
    f"{_UNITS}.encoder__input_layer": ("linear",),
    f"{_UNITS}.encoder__macaron_style": (False,),
    f"{_UNITS}.encoder__use_cnn_module": (False,),
    f"{_UNITS}.encoder__pos_enc_layer_type": ("rel_pos_espnet",),
    f"{_UNITS}.encoder__static_chunk_size": (1,),
    f"{_UNITS}.encoder__use_dynamic_chunk": (False, None),
    f"{_UNITS}.encoder__normalize_before": (True, None),
    f"{_UNITS}.encoder__selfattention_layer_type": ("rel_selfattn", None),
    f"{_UNITS}.llm__input_layer": ("linear_legacy",),
    f"{_UNITS}.llm__pos_enc_layer_type": ("rel_pos_espnet",),
    f"{_UNITS}.llm__selfattention_layer_type": ("rel_selfattn", None),
    f"{_UNITS}.llm__static_chunk_size": (1,),
    f"{_UNITS}.fuse_encoded_audio_text_type": ("weighted_sum",),
    f"{_UNITS}.fuse_encoded_audio_text_kwargs.use_trainable_weight": (True,),
    f"{_UNITS}.fuse_encoded_audio_text_kwargs.use_layer_norm": (False,),
    f"{_UNITS}.fuse_encoded_audio_text_kwargs.weight_init_type": FUSION_INITS,
    f"{_SLM}.audio_embed_conv_mode": ("fill_forward",),
    f"{_SLM}.in_llm_module": ("weighted_sum",),
    f"{_SLM}.out_llm_module": tuple(HEADS),
    f"{_SLM}.delay_level": ("word", "token"),
    f"{_SLM}.use_lora": (True,),
    f"{_SLM}.kwargs_for_lora.lora_target_linear": (True,),
    "text_config.model_type": ("llama",),
}


@dataclass(frozen=True)
class Backbone:
    """What the released config does not say; the defaults are the released model's."""

    # Arguments of transformers' WhisperConfig: the tokenizer's Whisper.
    whisper: Mapping[str, Any] = field(default_factory=lambda: dict(DISTIL_LARGE_V3))
    # Of the unit LM's TASTE encoder, constants of the released code.
    taste_heads: int = 8
    taste_feedforward: int = 2048
    taste_layers: int = 2


@dataclass(frozen=True)
class Architecture:
    """Sizes and options of a model in our words."""

    whisper: dict[str, Any]  # config.json of a Whisper
    llm: dict[str, Any]  # config.json of an LLM
    tokenizer: dict[str, Any]  # options of the task that trains tokenizers
    slm: dict[str, Any]  # options of the task that trains spoken LMs

    def write(self, folder: Path, home: Path) -> None:
        """Write one config a part into a folder of our layout.

        Args:
            folder: Existing folder with a folder for each part.
            home: Where it will lie, by which the tasks find Whisper and LLM; the
                configs name it from the root, to be valid in any current folder.
        """
        home = home.absolute()
        tokenizer = {**self.tokenizer, "whisper": str(home / WHISPER)}
        slm = {**self.slm, "llm": str(home / LLM)}
        for part, values in ((WHISPER, self.whisper), (LLM, self.llm)):
            text = json.dumps(values, indent=2) + "\n"
            (folder / part / "config.json").write_text(text, encoding="utf-8")
        for part, values in ((TASTE, tokenizer), (SLM, slm)):
            text = yaml.safe_dump(values, sort_keys=False)
            (folder / part / "config.yaml").write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Architecture":
        """Read what ``write`` wrote.

        Raises:
            FileNotFoundError: If a config is absent.
            UnknownArchitecture: If a config cannot be read.
        """
        return cls(
            read_mapping(folder / WHISPER / "config.json"),
            read_mapping(folder / LLM / "config.json"),
            read_mapping(folder / TASTE / "config.yaml"),
            read_mapping(folder / SLM / "config.yaml"),
        )


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON or YAML file that holds a mapping.

    Raises:
        FileNotFoundError: If it is absent.
        UnknownArchitecture: If it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no config at {path}; is the folder complete?")
    # YAML is no superset of JSON: it takes 1e-05 for a word.
    parse = json.loads if path.suffix == ".json" else yaml.safe_load
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise UnknownArchitecture(
            f"{path} cannot be read ({str(error).splitlines()[0]}); fetch it again"
        ) from error
    if not isinstance(values, dict):
        raise UnknownArchitecture(f"{path} holds no mapping; fetch it again")
    return values


def read_whisper_config(path: Path) -> dict[str, Any]:
    """Read the sizes of a Whisper from its ``config.json``.

    Raises:
        FileNotFoundError: If it is absent.
        UnknownArchitecture: If it lacks a size or cannot be read.
    """
    values = read_mapping(path)
    missing = sorted(set(DISTIL_LARGE_V3) - set(values))
    if missing:
        raise UnknownArchitecture(
            f"{path} is no Whisper config: it lacks {missing}; give that of the "
            "Whisper that the tokenizer was cut from"
        )
    return {name: values[name] for name in DISTIL_LARGE_V3}


def read_official(config: dict[str, Any], backbone: Backbone) -> Architecture:
    """Translate a released config.

    Args:
        config: Values of ``config.json``.
        backbone: What it lacks.

    Raises:
        UnknownArchitecture: If keys are absent or say what we do not implement, or
            the config does not go with the backbone; all faults are listed.
    """
    _refuse_unknown(config)
    try:
        architecture = Architecture(
            whisper={"model_type": "whisper", **backbone.whisper},
            llm=_llm_config(config["text_config"]),
            tokenizer=_tokenizer_options(config, backbone),
            slm=_slm_options(config),
        )
    except KeyError as error:
        raise UnknownArchitecture(
            f"config.json lacks {error}; fetch the one that belongs to the checkpoint"
        ) from error
    _refuse_other_widths(architecture)
    return architecture


def _refuse_unknown(config: dict[str, Any]) -> None:
    faults = []
    for path, known in _IMPLEMENTED.items():
        found: Any = config
        for key in path.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if found not in known:
            ours = " or ".join(repr(value) for value in known if value is not None)
            faults.append(f"{path} is {found!r}, we have {ours}")
    if faults:
        raise UnknownArchitecture(
            "config.json describes a model that we do not have: " + "; ".join(faults)
        )


def _refuse_other_widths(architecture: Architecture) -> None:
    """Whisper, quantizer and both readers of TASTE have one width."""
    tokenizer = architecture.tokenizer
    widths = {
        "d_model of the Whisper config": architecture.whisper.get("d_model"),
        "kwargs_for_quantizer.dim": tokenizer["quantizer_conf"]["input_dim"],
        "audio_encoder_input_size": tokenizer["decoder_conf"]["taste_dim"],
    }
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {value}" for name, value in widths.items())
        raise UnknownArchitecture(
            f"these widths must be equal: {listed}; give the config of the Whisper "
            "that the tokenizer was cut from"
        )


def _llm_config(text: dict[str, Any]) -> dict[str, Any]:
    # The released config says tied, its file has two different matrices.
    return {
        **text,
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": False,
    }


def _quantizer_options(config: dict[str, Any]) -> dict[str, Any]:
    sizes = config[_TOWER]["kwargs_for_quantizer"]
    return {
        "quantizer": "rvq",
        "quantizer_conf": {
            "input_dim": sizes["dim"],
            "codebook_dim": sizes["codebook_dim"],
            "codebook_size": sizes["codebook_size"],
            "num_codebooks": sizes["num_quantizers"],
            "decay": sizes["decay"],
            "quantizer_dropout": sizes["quantize_dropout"],
        },
    }


def _tokenizer_options(config: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    return {
        "whisper": WHISPER,
        "language": "en",
        "prefix_ids": list(PREFIX_IDS),
        "units_dir": None,
        "unit_rate_hz": UNIT_RATE_HZ,
        "span_conf": {"whole": True},
        "encoder": "whisper",
        "encoder_conf": {"value_layer": VALUE_LAYER, "window": "full"},
        "aggregator": "whisper_decoder",
        "aggregator_conf": {
            "value_identity": False,  # already in the weights
            "from_config": dict(backbone.whisper),
        },
        **_quantizer_options(config),
        "decoder": "unit_lm",
        "decoder_conf": _decoder_options(config[_UNITS], backbone),
        "model_conf": {"extract_feats_in_collect_stats": False},
        "frozen_weights": {},
    }


def _decoder_options(sizes: dict[str, Any], backbone: Backbone) -> dict[str, Any]:
    fusion = sizes["fuse_encoded_audio_text_kwargs"]
    return {
        "num_units": sizes["speech_token_size"],
        "text_vocab_size": sizes["text_token_size"],
        "taste_dim": sizes["audio_encoder_input_size"],
        "speaker_dim": sizes["spk_embed_dim"],
        "text_dim": sizes["encoder_input_size"],
        "taste_input_dim": sizes["encoder_input_size"],
        "width": sizes["llm_input_size"],
        "heads": sizes["llm__attention_heads"],
        "text_heads": sizes["encoder__attention_heads"],
        "taste_heads": backbone.taste_heads,
        "feedforward": sizes["llm__linear_units"],
        "text_feedforward": sizes["encoder__linear_units"],
        "taste_feedforward": backbone.taste_feedforward,
        "text_layers": sizes["encoder__num_blocks"],
        "taste_layers": backbone.taste_layers,
        "lm_layers": sizes["llm__num_blocks"],
        "dropout": sizes["llm__dropout_rate"],
        "fusion_init": fusion["weight_init_type"],
        "fusion_normalize": fusion["normalize"],
    }


def _slm_options(config: dict[str, Any]) -> dict[str, Any]:
    options, lora = config[_SLM], config[_SLM]["kwargs_for_lora"]
    text, taste = (float(w) for w in options["loss_weights"].split("-")[:2])
    return {
        "llm": LLM,
        "llm_dtype": config["text_config"].get("torch_dtype") or "bfloat16",
        "tokenizer_file": None,
        **_quantizer_options(config),
        "slm_conf": {
            "taste_dim": config[_TOWER]["kwargs_for_quantizer"]["dim"],
            "delay": options["delay"],
            "delay_level": options["delay_level"],
            "head": HEADS[options["out_llm_module"]],
            "eval_latent": "mu_sigma",  # reference defect C9; its weights need it
            "lora": {
                "r": lora["lora_r"],
                "alpha": lora["lora_alpha"],
                "dropout": lora["lora_dropout"],
            },
            "sos_id": options["sos_id"],
            "weights": {"text": text, "taste": taste},
        },
        "model_conf": {"extract_feats_in_collect_stats": False},
        "frozen_weights": {},
    }
