"""A speech tokenizer with every part in miniature: random weights, no download."""

from types import SimpleNamespace

import numpy as np
import torch
from tiny_whisper import tiny_aggregator, tiny_encoder

from espnet_taste.data.preprocessor import TokenizerPreprocessor
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.decoder.vocoder import AbsVocoder
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.tasks.tokenizer_model import TasteTokenizerModel
from espnet_taste.tokenizer.quantizer import NoQuantizer, RvqQuantizer

WIDTH, SPEAKER_DIM, NUM_UNITS = 16, 4, 11
CODEBOOK_SIZE, NUM_CODEBOOKS = 8, 2


def letters(text):
    """Return a token a letter, 10..69."""
    return [10 + ord(letter) % 60 for letter in text.strip()]


class ToneVocoder(AbsVocoder):
    """Every unit becomes 40 samples of its own number."""

    sample_rate_hz = 1000

    def forward(self, units, unit_lengths, speaker):
        return [
            (row[:length] / NUM_UNITS).repeat_interleave(40)
            for row, length in zip(units, unit_lengths.tolist())
        ]


class LoudnessSpeaker:
    """Embeds a recording by how it varies."""

    def embed(self, speech):
        vector = np.array([1.0, speech.std(), speech.max(), 0.5], dtype=np.float32)
        return vector / np.linalg.norm(vector)


def tiny_model(window="full", quantizer=None):
    """Return a joint model in eval mode."""
    torch.manual_seed(0)
    if quantizer is None:
        quantizer = RvqQuantizer(WIDTH, 4, CODEBOOK_SIZE, NUM_CODEBOOKS)
        features = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1))
        quantizer.initialise(features, generator=torch.Generator().manual_seed(0))
    decoder = UnitLM(
        NUM_UNITS,
        100,
        WIDTH,
        speaker_dim=SPEAKER_DIM,
        text_dim=8,
        taste_input_dim=8,
        width=16,
        heads=2,
        feedforward=16,
        text_layers=1,
        taste_layers=1,
        lm_layers=1,
    )
    encoder = tiny_encoder(window=window, trim_pad_s=0.0)
    model = TasteTokenizerModel(encoder, tiny_aggregator(), quantizer, decoder)
    return model.eval()


def tiny_tokenizer(window="full", quantizer=None, **options):
    """Return a tokenizer whose Whisper hears one second."""
    inference = TokenizerInference.__new__(TokenizerInference)
    inference.model = tiny_model(window, quantizer)
    inference.args = SimpleNamespace(unit_rate_hz=25.0, whisper="tiny", language="en")
    inference.device = torch.device("cpu")
    inference.preprocess = TokenizerPreprocessor(letters, 25.0)
    sampling = UnitSampling(bounds="tokens", top_k=3)
    tokenizer = TasteTokenizer(
        inference, ToneVocoder(), sampling=sampling, model_id="me", **options
    )
    tokenizer.encoder.speaker_encoder = LoudnessSpeaker()
    return tokenizer


def no_quantizer():
    """Return the bottleneck that is none."""
    return NoQuantizer()


def noise(num_samples, seed=0):
    """Return noise, (N,), float32."""
    draw = np.random.default_rng(seed)
    return draw.uniform(-0.5, 0.5, num_samples).astype(np.float32)
