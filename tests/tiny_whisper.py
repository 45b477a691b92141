"""Whisper in miniature: random weights, a window of one second, no download."""

import torch
from transformers import WhisperConfig
from transformers.models.whisper import modeling_whisper

from espnet_taste.tokenizer.aggregator import WhisperAggregator, build_decoder
from espnet_taste.tokenizer.encoder import WhisperEncoder

WINDOW_FRAMES = 50
WINDOW_SAMPLES = 320 * WINDOW_FRAMES
PREFIX_IDS = [90, 91]


def tiny_config(**changes):
    """Return sizes of a Whisper that runs in milliseconds."""
    sizes = dict(
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        num_mel_bins=80,
        max_source_positions=WINDOW_FRAMES,
        max_target_positions=24,
        vocab_size=100,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return WhisperConfig(**{**sizes, **changes})


def randomise(module, seed):
    """Fill parameters so that no part of the network is near the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        scale = 1.0 if "norm" in name else parameter[0].numel() ** -0.5
        parameter.data = values * scale + ("norm.weight" in name)
    return module


def tiny_encoder(value_layer=1, **options):
    """Return a frozen encoder."""
    module = randomise(modeling_whisper.WhisperEncoder(tiny_config()), seed=1)
    return WhisperEncoder.from_module(module, value_layer, **options)


def tiny_decoder(**changes):
    """Return a plain transformers decoder."""
    return randomise(build_decoder(tiny_config(**changes)), seed=2)


def tiny_aggregator(value_identity=False, **options):
    """Return an aggregator of the encoder's width."""
    return WhisperAggregator.from_module(
        tiny_decoder(), PREFIX_IDS, value_identity, **options
    )


def random_speech(*lengths, num_samples=None, pad=0.0):
    """Return noise of the given lengths, (B, N), and the lengths."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.full((len(lengths), num_samples or max(lengths)), pad)
    for row, length in zip(rows, lengths):
        row[:length] = 0.1 * torch.randn(length, generator=generator)
    return rows, torch.tensor(lengths)
