"""The aggregator: Whisper's decoder, with its keys and values from two places."""

import dataclasses

import pytest
import torch
from tiny_whisper import (
    PREFIX_IDS,
    random_speech,
    tiny_aggregator,
    tiny_decoder,
    tiny_encoder,
)

from espnet_taste.tokenizer.aggregator import WhisperAggregator

TOKENS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
LENGTHS = torch.tensor([4, 2])
WORDS = torch.tensor([[0, 0, 1, 2], [0, 0, -1, -1]])


@pytest.fixture(scope="module")
def states():
    return tiny_encoder(window="trimmed", trim_pad_s=0.0)(*random_speech(6400, 3200))


def replace(states, **changes):
    return dataclasses.replace(states, **changes)


def test_equal_sources_give_whispers_own_decoder(states):
    """Released names, positions, causal mask and scaling, all at once."""
    both = replace(states, values=states.keys)
    decoder = tiny_decoder()
    row = torch.tensor([PREFIX_IDS + TOKENS[0].tolist()])
    expected = decoder(row, encoder_hidden_states=states.keys[:1], use_cache=False)

    features = tiny_aggregator().token_features(TOKENS, LENGTHS, both)

    torch.testing.assert_close(
        features[0], expected.last_hidden_state[0, len(PREFIX_IDS) :]
    )


def test_parameter_names_are_those_of_transformers():
    ours = tiny_aggregator().state_dict()
    released = tiny_decoder().state_dict()
    assert set(ours) == {f"decoder.{name}" for name in released}


def test_keys_and_values_come_from_their_own_states(states):
    aggregator = tiny_aggregator()
    plain = aggregator(TOKENS, LENGTHS, WORDS, states)
    keys = aggregator.attention_maps(TOKENS, LENGTHS, WORDS, states)

    doubled = replace(states, values=2 * states.values)
    moved = replace(states, keys=states.keys.roll(1, dims=1))

    assert not torch.allclose(
        aggregator(TOKENS, LENGTHS, WORDS, doubled)[0], plain[0], atol=1e-3
    )
    first_layer = slice(0, 2)  # later layers see what the values did
    assert aggregator.attention_maps(TOKENS, LENGTHS, WORDS, doubled)[
        :, first_layer
    ].allclose(keys[:, first_layer])
    assert not aggregator.attention_maps(TOKENS, LENGTHS, WORDS, moved).allclose(keys)


def test_value_projections_start_as_the_identity():
    for layer in tiny_aggregator(value_identity=True).decoder.layers:
        assert layer.encoder_attn.v_proj.weight.equal(torch.eye(16))
        assert layer.encoder_attn.v_proj.bias.count_nonzero() == 0
    kept = tiny_aggregator(value_identity=False).decoder.layers[0].encoder_attn
    expected = tiny_decoder().layers[0].encoder_attn
    assert kept.v_proj.weight.equal(expected.v_proj.weight)


def test_subwords_share_their_feature_and_padding_is_zero(states):
    features = tiny_aggregator()(TOKENS, LENGTHS, WORDS, states)

    assert features[0, 0].equal(features[0, 1])
    assert not torch.allclose(features[0, 1], features[0, 2])
    assert features[1, 2:].count_nonzero() == 0


def test_frames_behind_the_length_are_not_attended(states):
    aggregator = tiny_aggregator()
    is_padding = ~states.mask[..., None]
    assert is_padding.any()
    dirty = replace(
        states,
        keys=states.keys.masked_fill(is_padding, 50.0),
        values=states.values.masked_fill(is_padding, -50.0),
    )

    torch.testing.assert_close(
        aggregator(TOKENS, LENGTHS, WORDS, dirty),
        aggregator(TOKENS, LENGTHS, WORDS, states),
    )


def test_a_token_is_not_seen_by_those_before_it(states):
    aggregator = tiny_aggregator()
    other = TOKENS.clone()
    other[0, 2] = 50

    plain = aggregator.token_features(TOKENS, LENGTHS, states)
    changed = aggregator.token_features(other, LENGTHS, states)

    torch.testing.assert_close(changed[0, :2], plain[0, :2])
    assert not torch.allclose(changed[0, 2], plain[0, 2])


def test_gradients_reach_all_that_is_used_and_no_states(states):
    aggregator = tiny_aggregator(freeze_embeddings=True).train()

    aggregator(TOKENS, LENGTHS, WORDS, states).square().sum().backward()

    frozen = {
        name for name, value in aggregator.named_parameters() if value.grad is None
    }
    assert frozen == {
        "decoder.embed_tokens.weight",
        "decoder.embed_positions.weight",
    }
    assert aggregator.frozen_parts == (
        "decoder.embed_tokens",
        "decoder.embed_positions",
    )
    assert tiny_aggregator().frozen_parts == ()
    for layer in aggregator.decoder.layers:
        assert layer.encoder_attn.v_proj.weight.grad.abs().sum() > 0


def test_there_is_no_dropout_in_training(states):
    decoder = tiny_decoder(dropout=0.5, attention_dropout=0.5, activation_dropout=0.5)
    aggregator = WhisperAggregator.from_module(decoder, PREFIX_IDS).train()

    first = aggregator(TOKENS, LENGTHS, WORDS, states)

    assert aggregator(TOKENS, LENGTHS, WORDS, states).equal(first)


def test_attention_maps_are_collected_on_request_only(states):
    """Reference cost P9: they are computed and kept at every pass."""
    aggregator = tiny_aggregator()

    maps = aggregator.attention_maps(TOKENS, LENGTHS, WORDS, states)

    num_frames = states.keys.size(1)
    assert maps.shape == (2, 2 * 2, 4, num_frames)  # two layers of two heads
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 4))
    assert maps[1, ..., ~states.mask[1]].count_nonzero() == 0
    assert all(layer.encoder_attn.maps is None for layer in aggregator.decoder.layers)


def test_every_attention_map_is_that_of_its_token(states):
    aggregator = tiny_aggregator()
    other = TOKENS.clone()
    other[0, 1] = 50

    plain = aggregator.attention_maps(TOKENS, LENGTHS, WORDS, states)[0]
    changed = aggregator.attention_maps(other, LENGTHS, WORDS, states)[0]

    torch.testing.assert_close(changed[:, 0], plain[:, 0])
    assert not torch.allclose(changed[:, 1], plain[:, 1])


def test_attention_maps_are_those_that_sdpa_applies(states):
    """With identity values and output, attended values are maps times values."""
    attention = tiny_aggregator(value_identity=True).decoder.layers[0].encoder_attn
    attention.maps = []
    attention.out_proj.weight.data.copy_(torch.eye(16))
    attention.out_proj.bias.data.zero_()

    attended, _ = attention(torch.randn(2, 3, 16), states, states.mask[:, None, None])

    heads = attention.maps[0] @ states.values.unflatten(-1, (2, 8)).transpose(1, 2)
    torch.testing.assert_close(attended, heads.transpose(1, 2).flatten(2))


def test_too_many_tokens_are_refused(states):
    tokens = torch.ones(2, 23, dtype=torch.long)
    with pytest.raises(ValueError, match="25 tokens with the prefix .* 24 positions"):
        tiny_aggregator()(tokens, LENGTHS, torch.zeros_like(tokens), states)


def test_batches_that_differ_are_refused(states):
    with pytest.raises(ValueError, match="1 rows of tokens but encoder states of 2"):
        tiny_aggregator()(TOKENS[:1], LENGTHS[:1], WORDS[:1], states)


def test_released_weights_add_tokens_and_positions_in_their_stored_type(states):
    """Spec 2.4: under float16, bfloat16 weights add up in bfloat16."""
    aggregator, read = tiny_aggregator(), []
    aggregator.decoder.layers[0].register_forward_pre_hook(
        lambda module, given: read.append(given[0])
    )

    def run(stored):
        aggregator.embedding_dtype = stored
        aggregator(TOKENS, LENGTHS, WORDS, states)
        with torch.autocast("cpu", torch.float16):
            aggregator(TOKENS, LENGTHS, WORDS, states)

    run(None)
    run(torch.bfloat16)

    exact, plain_half, alone, half = read
    assert torch.equal(exact, plain_half) and torch.equal(exact, alone)
    assert torch.equal(half, exact.bfloat16().float()) and not torch.equal(half, exact)
