"""Loading Whisper checkpoints: complete ones only."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_whisper import random_speech, tiny_config
from transformers import WhisperForConditionalGeneration

from espnet_taste.tokenizer.aggregator import WhisperAggregator
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.tokenizer.whisper import is_multilingual, load_config, load_whisper
from espnet_taste.weights import resolve


@pytest.fixture
def folder(tmp_path):
    """A complete checkpoint in the layout of the hub."""
    torch.manual_seed(0)
    WhisperForConditionalGeneration(tiny_config()).save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_comes_back_whole(folder):
    whisper = load_whisper(str(folder))

    stored = load_file(folder / "model.safetensors")
    assert stored
    loaded = whisper.state_dict(prefix="model.")
    assert all(loaded[k].equal(v) for k, v in stored.items() if k in loaded)
    assert set(loaded) <= set(stored)
    assert not whisper.training
    assert whisper.config._attn_implementation == "sdpa"
    assert load_config(str(folder)).vocab_size == 100


def test_an_incomplete_checkpoint_is_refused(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    del state["model.decoder.layers.1.fc1.weight"]
    save_file(state, path, metadata={"format": "pt"})

    with pytest.raises(
        ValueError, match="1 tensors are missing, e.g. decoder.layers.1"
    ):
        load_whisper(str(folder))


def test_a_checkpoint_that_was_cut_short_is_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ValueError, match=f"{folder}: damaged weights .* copy them"):
        load_whisper(str(folder))


def test_a_part_loads_without_the_other(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    encoder = {n: t for n, t in state.items() if n.startswith("model.encoder.")}
    save_file(encoder, path, metadata={"format": "pt"})

    loaded = load_whisper(str(folder), "encoder").encoder.state_dict()

    assert all(
        loaded[n.removeprefix("model.encoder.")].equal(encoder[n]) for n in encoder
    )
    assert WhisperEncoder(str(folder)).output_size() == 16
    with pytest.raises(ValueError, match="tensors are missing, e.g. decoder"):
        load_whisper(str(folder), "decoder")
    del encoder["model.encoder.conv1.weight"]
    save_file(encoder, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 tensors are missing, e.g. encoder.conv1"):
        load_whisper(str(folder), "encoder")


def test_the_encoder_loads_by_name(folder):
    encoder = WhisperEncoder(str(folder), value_layer=2, window="trimmed")
    states = encoder(*random_speech(4000))
    assert states.keys.size(-1) == 16
    assert not any(p.requires_grad for p in encoder.parameters())


def test_other_attention_is_refused():
    """With "eager" attention a mask would be added instead of applied.

    Reference cost P9: its Whisper runs with no other.
    """
    eager = tiny_config(attn_implementation="eager")
    whisper = WhisperForConditionalGeneration(eager).model
    with pytest.raises(ValueError, match="'sdpa', this one has 'eager'"):
        WhisperEncoder.from_module(whisper.encoder)
    with pytest.raises(ValueError, match="'sdpa', this one has 'eager'"):
        WhisperAggregator.from_module(whisper.decoder, [1])


def test_english_only_is_told_by_the_vocabulary():
    assert not is_multilingual(51864)
    assert is_multilingual(51865) and is_multilingual(51866)


@pytest.mark.weights
def test_tiny_en_decodes_as_transformers_does():
    name = "openai/whisper-tiny.en"
    try:
        folder = resolve(name, offline=True)
    except FileNotFoundError as error:
        pytest.skip(f"needs {name}: {error}")
    whisper = load_whisper(str(folder))
    aggregator = WhisperAggregator(name, value_identity=False)
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(2, 30, aggregator.output_size(), generator=generator)
    states = EncoderStates(keys, keys, torch.tensor([30, 30]))
    tokens = torch.randint(1000, (2, 7), generator=generator)

    features = aggregator.token_features(tokens, torch.tensor([7, 7]), states)

    prefix = torch.tensor([[50257, 50362]]).expand(2, -1)
    expected = whisper.decoder(
        torch.cat([prefix, tokens], 1), encoder_hidden_states=keys, use_cache=False
    )
    torch.testing.assert_close(
        features, expected.last_hidden_state[:, 2:], atol=2e-4, rtol=1e-4
    )
