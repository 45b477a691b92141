"""Encoder, aggregator and quantizer together."""

import pytest
import torch
from tiny_whisper import random_speech, tiny_aggregator, tiny_encoder

from espnet_taste.tokenizer.model import SpeechTokenizer
from espnet_taste.tokenizer.quantizer import NoQuantizer, RvqQuantizer

TEXT = (
    torch.tensor([[5, 6, 7], [8, 0, 0]]),
    torch.tensor([3, 1]),
    torch.tensor([[0, 0, 1], [0, 0, 0]]),
)
MASK = torch.tensor([[True, True, True], [True, False, False]])


def build(quantizer, encoder=True):
    encoder = tiny_encoder(window="trimmed") if encoder else None
    return SpeechTokenizer(encoder, tiny_aggregator(), quantizer)


def quantizer():
    torch.manual_seed(0)
    rvq = RvqQuantizer(16, 4, 8, 2)
    rvq.initialise(torch.randn(50, 16), generator=torch.Generator().manual_seed(0))
    return rvq


def test_speech_and_its_cached_states_give_the_same():
    model = build(quantizer()).eval()
    speech, lengths = random_speech(6400, 3200)
    states = model.encode_speech(speech, lengths)

    from_speech = model.encode(speech, *TEXT, speech_lengths=lengths)
    from_states = model.encode(states, *TEXT)

    assert from_speech.codes.equal(from_states.codes)
    assert from_speech.embeds.equal(from_states.embeds)
    torch.testing.assert_close(
        from_speech.embeds, model.quantizer.decode(from_speech.codes)
    )
    assert from_speech.codes[~MASK].eq(-1).all()
    assert from_speech.codes[0, 0].equal(from_speech.codes[0, 1])


def test_without_lengths_all_samples_are_valid():
    model = build(quantizer()).eval()
    speech, lengths = random_speech(6400, 6400)
    out = model.encode(speech, *TEXT)
    assert out.embeds.equal(model.encode(speech, *TEXT, speech_lengths=lengths).embeds)


def test_cached_states_need_no_encoder():
    speech, lengths = random_speech(6400, 3200)
    states = tiny_encoder(window="trimmed")(speech, lengths)
    model = build(NoQuantizer(), encoder=False)

    out = model.encode(states, *TEXT)

    assert out.codes is None
    assert out.embeds.equal(out.features)
    with pytest.raises(ValueError, match="has no encoder"):
        model.encode(speech, *TEXT)


def test_training_reaches_everything_but_the_encoder():
    model = build(quantizer()).train()
    states = model.encode_speech(*random_speech(6400, 3200))

    out = model(states, *TEXT)
    (out.embeds.square().sum() + out.commitment.sum()).backward()

    untouched = {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is None
    }
    assert untouched == {"encoder"}
    assert not model.encoder.training
    assert model.quantizer.rvq.project_in.weight.grad.abs().sum() > 0


def test_encoding_keeps_no_graph():
    out = build(NoQuantizer()).encode(random_speech(6400, 3200)[0], *TEXT)
    assert not out.embeds.requires_grad
