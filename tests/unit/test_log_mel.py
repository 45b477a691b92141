"""Our log-mel equals transformers' feature extractor, row by row."""

import pytest
import torch
from transformers import WhisperFeatureExtractor

from espnet_taste.tokenizer.log_mel import log_mel, mel_filters


@pytest.mark.parametrize("num_bins", [80, 128])
def test_equals_the_feature_extractor(num_bins):
    generator = torch.Generator().manual_seed(0)
    extractor = WhisperFeatureExtractor(feature_size=num_bins, chunk_length=2)
    speech = torch.zeros(3, 32000)
    for row, (length, gain) in enumerate([(32000, 0.5), (9000, 0.01), (400, 0.1)]):
        speech[row, :length] = gain * torch.randn(length, generator=generator)

    mel = log_mel(speech, mel_filters(num_bins))

    expected = extractor(list(speech.numpy()), sampling_rate=16000, return_tensors="pt")
    torch.testing.assert_close(
        mel, expected.input_features.transpose(1, 2), atol=2e-5, rtol=0.0
    )


def test_autocast_does_not_touch_it():
    speech = 0.1 * torch.randn(1, 3200, generator=torch.Generator().manual_seed(0))
    plain = log_mel(speech, mel_filters(80))
    with torch.autocast("cpu", torch.bfloat16):
        assert log_mel(speech, mel_filters(80)).equal(plain)


def test_silence_is_finite():
    mel = log_mel(torch.zeros(1, 3200), mel_filters(80))
    assert mel.eq(-1.5).all()
