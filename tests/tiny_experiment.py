"""What the recipe leaves of a training, in miniature: it opens by its path.

Random weights in every file that ``from_pretrained`` reads, Whisper and speaker encoder
among them, so that commands run as a user runs them, without a download.
"""

import argparse
import json

import torch
import yaml
from safetensors.torch import save_file
from tiny_whisper import randomise, tiny_config
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.tasks.tokenizer_builder import TokenizerBuilder
from espnet_taste.units.speaker import EMBEDDING_DIM, SpeakerEncoder
from espnet_taste.weights.cache import CACHE_VARIABLE, MANIFEST, weights_folder
from espnet_taste.weights.catalog import CATALOG
from espnet_taste.weights.digests import TRAINED_FILE as MODEL
from espnet_taste.weights.digests import sha256_of

WIDTH, NUM_UNITS, UNIT_RATE_HZ = 16, 11, 25.0
SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
SPEAKER = "resemblyzer/ge2e"


def make_experiment(root, monkeypatch):
    """Make an experiment folder and point the weight cache beside it.

    Returns:
        The folder, as ``--model`` takes it.
    """
    monkeypatch.setenv(CACHE_VARIABLE, str(root / "cache"))
    make_speaker(root / "cache")
    make_whisper(root / "whisper")
    make_tokenizer(root / "exp" / "taste", str(root / "whisper"))
    make_vocoder(root / "exp" / "vocoder")
    return root / "exp"


def make_whisper(folder):
    """Save a Whisper that spells words byte by byte and hears 30 s."""
    spelt = {
        sign: n for n, sign in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))
    }
    tokenizer = WhisperTokenizer(vocab=spelt, merges=[])
    special = [AddedToken(name, special=True, normalized=False) for name in SPECIAL]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    end, start, _ = tokenizer.convert_tokens_to_ids(SPECIAL)
    config = tiny_config(
        vocab_size=len(tokenizer),
        max_source_positions=1500,
        max_target_positions=96,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
    )
    whisper = randomise(WhisperForConditionalGeneration(config), seed=3)
    whisper.generation_config.max_length = 12
    for part in (whisper, tokenizer, WhisperFeatureExtractor(feature_size=80)):
        part.save_pretrained(folder)


def make_tokenizer(folder, whisper):
    """Save a tokenizer with its unit decoder as ESPnet's trainer does."""
    rvq = {"input_dim": WIDTH, "codebook_dim": 4, "codebook_size": 8}
    decoder = {
        "num_units": NUM_UNITS,
        "speaker_dim": EMBEDDING_DIM,
        "taste_dim": WIDTH,
        "text_dim": 8,
        "taste_input_dim": 8,
        "width": 16,
        "heads": 2,
        "feedforward": 16,
        "text_layers": 1,
        "taste_layers": 1,
        "lm_layers": 1,
    }
    config = {
        "whisper": whisper,
        "language": "en",
        "unit_rate_hz": UNIT_RATE_HZ,
        "units_dir": None,
        "frozen_weights": {},
        "encoder": "whisper",
        "encoder_conf": {"window": "trimmed"},
        "aggregator": "whisper_decoder",
        "aggregator_conf": {},
        "quantizer": "rvq",
        "quantizer_conf": {**rvq, "num_codebooks": 2},
        "decoder": "unit_lm",
        "decoder_conf": decoder,
        "model_conf": {},
        "init_from": None,
        "span_conf": {},
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    model = TokenizerBuilder.build_model(argparse.Namespace(**config))
    model.quantizer.initialise(
        torch.randn(50, WIDTH), generator=torch.Generator().manual_seed(0)
    )
    torch.save(model.state_dict(), folder / MODEL)


def make_vocoder(folder):
    """Save a units-to-mel model in front of a vocoder without weights."""
    sizes = {"width": 8, "unit_blocks": 1, "frame_blocks": 1}
    conf = {"num_units": NUM_UNITS, "unit_rate_hz": UNIT_RATE_HZ, **sizes}
    conf["speaker_dim"] = EMBEDDING_DIM
    config = {
        "vocoder": "unit_to_mel",
        "unit_to_mel_conf": conf,
        "mel_vocoder": "griffin_lim",
        "mel_vocoder_conf": {"num_iterations": 2},
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    state = UnitToMel(**conf).state_dict()
    state = {f"unit_to_mel.{name}": value for name, value in state.items()}
    torch.save(state, folder / MODEL)


def make_speaker(cache):
    """Put a speaker encoder into a cache of weights."""
    folder = weights_folder(cache, SPEAKER)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    path = folder / "model.safetensors"
    save_file(SpeakerEncoder().state_dict(), path)
    manifest = {
        "name": SPEAKER,
        "revision": CATALOG[SPEAKER].revision,
        "files": {path.name: {"sha256": sha256_of(path)}},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
