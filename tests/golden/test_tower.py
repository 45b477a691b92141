"""Encoder, aggregator and quantizer, alone and in a row, equal the released tower.

Each is given what the released one before it computed, so that a difference shows
where it arises; the whole tower is given log-mel features.
"""

import pytest
import torch
import torch.nn.functional as F
from released_tower import (
    build_aggregator,
    build_encoder,
    build_quantizer,
    build_tokenizer,
)

from espnet_taste.layers.word_pooling import first_of_words, pool_words
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.types import IGNORE


@pytest.fixture(scope="module")
def case(golden):
    return golden("tower")


@pytest.fixture(scope="module")
def names(case):
    """Sub-cases that went through the whole tower."""
    return case.sub_cases("audio_unit_embeds")


@pytest.fixture
def tokenizer(case):
    config = case.config
    return build_tokenizer(
        case, config["target_hidden_layer"], config["decoder_prefix_ids"]
    )


def inputs(case, name, num_tokens=None):
    """Return tokens, lengths and words, padded with 0 to a number of tokens."""
    tokens = case.input(f"{name}.asr_token_ids")
    words = case.input(f"{name}.asr_word_ids")
    lengths = case.input(f"{name}.asr_token_lengths")
    if num_tokens is not None:
        padding = (0, num_tokens - tokens.size(1))
        tokens, words = F.pad(tokens, padding), F.pad(words, padding)
    return tokens, lengths, words


def mask_of(case, name):
    tokens, lengths, _ = inputs(case, name)
    return torch.arange(tokens.size(1)) < lengths[:, None]


def hidden_name(case):
    return f"encoder_hidden_{case.config['target_hidden_layer']}"


def check_encoder(case, name, states):
    case.check(f"{name}.{hidden_name(case)}", states.values)
    case.check(f"{name}.encoder_final", states.keys)


def check_quantized(case, name, codes, embeds):
    case.check(f"{name}.quantized_indices", codes)
    case.check(f"{name}.audio_unit_embeds", embeds)


def test_encoder(case, names):
    encoder = build_encoder(case, case.config["target_hidden_layer"])
    for name in names:
        features = case.input(f"{name}.audio_features")
        check_encoder(case, name, encoder.encode_log_mel(features))


@torch.no_grad()
def test_decoder_at_every_position(case, names):
    """Also at padding and at the original's end token, which ours leaves out."""
    prefix = torch.tensor(case.config["decoder_prefix_ids"])
    aggregator = build_aggregator(case, prefix.tolist())
    for name in names:
        tokens, lengths, _ = inputs(case, name)
        keys = case.output(f"{name}.encoder_final")
        values = case.output(f"{name}.{hidden_name(case)}")
        states = EncoderStates(keys, values, torch.full((len(keys),), keys.size(1)))
        end = torch.full((len(tokens), 1), case.config["decoder_eos_id"])
        complete = torch.cat([prefix.expand(len(tokens), -1), tokens, end], dim=1)

        case.check(f"{name}.decoder_hidden", aggregator.decode(complete, states))
        features = aggregator.token_features(tokens, lengths, states)
        case.check(f"{name}.decoder_features", features, mask_of(case, name))


@torch.no_grad()
def test_pooling_and_quantizer(case, names):
    quantizer = build_quantizer(case)
    for name in names:
        _, lengths, words = inputs(case, name)
        mask = mask_of(case, name)
        case.check(f"{name}.valid_mask", mask)

        features = case.output(f"{name}.decoder_features")
        case.check(f"{name}.pooled", pool_words(features, words, lengths), mask)
        out = quantizer(case.output(f"{name}.pooled"), mask)
        check_quantized(case, name, out.codes, out.quantized)


def test_whole_tower(case, names, tokenizer):
    for name in names:
        states = tokenizer.encoder.encode_log_mel(case.input(f"{name}.audio_features"))
        check_encoder(case, name, states)

        out = tokenizer.encode(states, *inputs(case, name))

        case.check(f"{name}.pooled", out.features, mask_of(case, name))
        check_quantized(case, name, out.codes, out.embeds)


def padded_single(case):
    """Yield the one-word utterance at every padding with what the original made."""
    defects = case.output_names("oneword_pad")
    num_tokens = case.input("single.asr_token_ids").size(1)
    assert defects
    for name in defects:
        padding = int(name.split(".")[0].removeprefix("oneword_pad"))
        padded = inputs(case, "single", num_tokens + padding)
        yield num_tokens, padded, case.output(name)


def test_one_word_utterance_in_a_padded_batch(case, tokenizer):
    """Reference defect C2: the intended result is that without padding."""
    states = tokenizer.encoder.encode_log_mel(case.input("single.audio_features"))
    for num_tokens, padded, defect in padded_single(case):
        out = tokenizer.encode(states, *padded)

        case.check("single.pooled", out.features[:, :num_tokens])
        assert not torch.allclose(out.features[0, :num_tokens], defect)


def test_one_padded_word_is_pooled_without_its_padding(case):
    """Reference defect C2, from the released features on."""
    for num_tokens, (_, lengths, words), defect in padded_single(case):
        features = case.output("single.decoder_features")
        features = F.pad(features, (0, 0, 0, words.size(1) - num_tokens))

        pooled = pool_words(features, words, lengths)

        case.check("single.pooled", pooled[:, :num_tokens])
        assert not torch.allclose(pooled[0, :num_tokens], defect)


def test_codes_per_word(case, names):
    for name in names:
        _, lengths, words = inputs(case, name)
        codes = case.output(f"{name}.quantized_indices")

        per_word = first_of_words(codes, words, lengths)

        for row, length in enumerate(lengths.tolist()):
            for word in range(per_word.size(1)):
                found = (words[row, :length] == word).nonzero()
                expected = codes[row, found[0, 0]] if len(found) else IGNORE
                assert (per_word[row, word] == expected).all()
