"""What the recipe leaves of a training, in miniature: random weights, no download."""

import argparse

import numpy as np
import tiny_onnx
import torch
import yaml
from tiny_slm import make_llm
from tiny_whisper import WINDOW_SAMPLES, randomise, tiny_config
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.tasks.slm_builder import SpokenLMBuilder
from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder
from espnet_taste.units.speakers import record_speaker_model
from espnet_taste.weights.digests import TRAINED_FILE

WIDTH, SPEAKER_DIM, NUM_UNITS, UNIT_RATE_HZ = 16, 6, 11, 25.0
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]


def write_whisper(folder, window_s=1):
    """Write a whole Whisper of so many seconds (1 or 30) that knows single bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={c: i for i, c in enumerate(letters)}, merges=[])
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    end, start = map(tokenizer.convert_tokens_to_ids, SPECIAL[:2])
    sizes = {"max_source_positions": 1500, "max_target_positions": 96}
    config = tiny_config(
        vocab_size=len(tokenizer),
        decoder_start_token_id=start,
        eos_token_id=end,
        bos_token_id=end,
        **(sizes if window_s == 30 else {}),
    )
    whisper = randomise(WhisperForConditionalGeneration(config), seed=3)
    whisper.generation_config.max_length = 8
    # Letters alone, so that it writes a word of them.
    whisper.generation_config.suppress_tokens = [
        index
        for index in range(len(tokenizer))
        if not tokenizer.decode([index]).isascii()
        or not tokenizer.decode([index]).isalpha()
    ]
    whisper.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(
        feature_size=80,
        chunk_length=window_s,
        n_samples=window_s * WINDOW_SAMPLES,
    ).save_pretrained(folder)
    return folder


def write_experiment(folder, whisper):
    """Write a speech tokenizer, a vocoder and the record of a speaker encoder."""
    config = {
        "whisper": str(whisper),
        "language": "en",
        "units_dir": None,
        "unit_rate_hz": UNIT_RATE_HZ,
        "encoder": "whisper",
        "encoder_conf": {},
        "aggregator": "whisper_decoder",
        "aggregator_conf": {},
        "quantizer": "rvq",
        "quantizer_conf": {
            "input_dim": WIDTH,
            "codebook_dim": 4,
            "codebook_size": 8,
            "num_codebooks": 2,
        },
        "decoder": "unit_lm",
        "decoder_conf": {
            "num_units": NUM_UNITS,
            "taste_dim": WIDTH,
            "speaker_dim": SPEAKER_DIM,
            **{"text_dim": 8, "taste_input_dim": 8, "width": 16, "heads": 2},
            **{"feedforward": 16, "text_layers": 1, "taste_layers": 1, "lm_layers": 1},
        },
        "model_conf": {},
        "frozen_weights": {},
        "init_from": None,
    }
    torch.manual_seed(0)
    model = TokenizerBuilder.build_model(argparse.Namespace(**config))
    features = torch.randn(50, WIDTH)
    model.quantizer.initialise(features, generator=torch.Generator().manual_seed(0))
    _write_part(folder / "taste", config, model.state_dict())

    sizes = {"num_units": NUM_UNITS, "unit_rate_hz": UNIT_RATE_HZ, "width": 8}
    sizes |= {"speaker_dim": SPEAKER_DIM, "unit_blocks": 1, "frame_blocks": 1}
    config = {
        "vocoder": "unit_to_mel",
        "unit_to_mel_conf": sizes,
        "mel_vocoder": "griffin_lim",
        "mel_vocoder_conf": {"num_iterations": 1},
    }
    state = UnitToMel(**sizes).state_dict()
    named = {f"unit_to_mel.{name}": value for name, value in state.items()}
    _write_part(folder / "vocoder", config, named)

    (folder / "units").mkdir()
    for name in ("config.json", "units.safetensors"):
        (folder / "units" / name).touch()
    record_speaker_model(
        str(write_speaker_network(folder.parent / "campplus.onnx")), folder / "speaker"
    )
    return folder


def write_spoken_lm(experiment, llm):
    """Write a spoken LM of the experiment's tokenizer, as if trained elsewhere.

    Args:
        experiment: What ``write_experiment`` made.
        llm: Folder for the text LLM.
    """
    model = make_llm(vocab_size=300)
    model.save_pretrained(llm)
    byte_tokenizer().save_pretrained(llm)
    config = {
        "llm": str(llm),
        "llm_dtype": "float32",
        "tokenizer_file": str(experiment / "taste" / TRAINED_FILE),
        "slm_conf": {"lora": {"r": 2, "alpha": 4, "dropout": 0.0}},
        "model_conf": {},
        "frozen_weights": {},
        "init_from": None,
    }
    args = argparse.Namespace(**config)
    state = SpokenLMBuilder.build_model(args).state_dict()
    # Paths count from the folder of the recipe, which is not where it is opened.
    args.tokenizer_file = "exp/elsewhere/taste/" + TRAINED_FILE
    _write_part(experiment / "slm", vars(args), state)
    return experiment


def byte_tokenizer():
    """Return a tokenizer of single bytes with a start and end symbol."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>"
    )


def write_speaker_network(path, speaker_dim=SPEAKER_DIM):
    """Write a network in CAM++'s place: how loud each band is, projected."""
    draw = np.random.default_rng(0)
    nodes = [
        tiny_onnx.node("Mul", ["fbank", "fbank"], ["square"]),
        tiny_onnx.node("ReduceMean", ["square"], ["mean"], axes=[1], keepdims=0),
        tiny_onnx.node("MatMul", ["mean", "projection"], ["embedding"]),
    ]
    weights = {"projection": draw.standard_normal((80, speaker_dim))}
    shapes = {"fbank": ("B", "M", 80)}, {"embedding": ("B", speaker_dim)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tiny_onnx.model(nodes, weights, *shapes))
    return path


def _write_part(folder, config, state):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(state, folder / TRAINED_FILE)
