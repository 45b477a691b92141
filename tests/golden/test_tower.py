"""Encoder, aggregator and quantizer in a row equal the released audio tower."""

import pytest
import torch
from reference_names import DECODER, ENCODER, RVQ, rvq_state
from transformers import WhisperConfig
from transformers.models.whisper import modeling_whisper

from espnet_taste.layers.word_pooling import first_of_words
from espnet_taste.tokenizer.aggregator import WhisperAggregator, build_decoder
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.model import SpeechTokenizer
from espnet_taste.tokenizer.quantizer import RvqQuantizer
from espnet_taste.types import IGNORE


@pytest.fixture(scope="module")
def case(golden):
    return golden("tower")


@pytest.fixture(scope="module")
def tokenizer(case):
    config = WhisperConfig(**case.config["whisper"], attn_implementation="sdpa")
    encoder = modeling_whisper.WhisperEncoder(config)
    encoder.load_state_dict(case.state(ENCODER))
    decoder = build_decoder(config)
    decoder.load_state_dict(case.state(DECODER))
    sizes = case.config["quantizer"]
    quantizer = RvqQuantizer(
        sizes["dim"],
        sizes["codebook_dim"],
        sizes["codebook_size"],
        sizes["num_quantizers"],
    )
    state = rvq_state(case.state(RVQ), quantizer.num_codebooks)
    quantizer.rvq.load_state_dict(state)
    model = SpeechTokenizer(
        WhisperEncoder.from_module(encoder, case.config["target_hidden_layer"]),
        WhisperAggregator.from_module(
            decoder, case.config["decoder_prefix_ids"], value_identity=False
        ),
        quantizer,
    )
    return model.eval()


def inputs(case, name, num_tokens=None):
    """Return tokens, lengths and words, padded with 0 to a number of tokens."""
    tokens = case.input(f"{name}.asr_token_ids")
    words = case.input(f"{name}.asr_word_ids")
    lengths = case.input(f"{name}.asr_token_lengths")
    if num_tokens is not None:
        padding = (0, num_tokens - tokens.size(1))
        tokens = torch.nn.functional.pad(tokens, padding)
        words = torch.nn.functional.pad(words, padding)
    return tokens, lengths, words


@pytest.mark.parametrize("name", ["batch", "single"])
def test_every_step(case, tokenizer, name):
    tokens, lengths, words = inputs(case, name)
    mask = case.output(f"{name}.valid_mask")
    num_prefix = len(case.config["decoder_prefix_ids"])

    states = tokenizer.encoder.encode_log_mel(case.input(f"{name}.audio_features"))
    layer = case.config["target_hidden_layer"]
    case.check(f"{name}.encoder_hidden_{layer}", states.values)
    case.check(f"{name}.encoder_final", states.keys)

    features = tokenizer.aggregator.token_features(tokens, lengths, states)
    case.check(f"{name}.decoder_features", features, mask)

    out = tokenizer.encode(states, tokens, lengths, words)
    case.check(f"{name}.pooled", out.features, mask)
    case.check(f"{name}.quantized_indices", out.codes)
    case.check(f"{name}.audio_unit_embeds", out.embeds)

    prefix = tokenizer.aggregator.prefix_ids.expand(len(tokens), -1)
    hidden = tokenizer.aggregator.decode(torch.cat([prefix, tokens], 1), states)
    expected = case.output(f"{name}.decoder_hidden")
    padded = expected.clone()  # the original's end token has no position of ours
    padded[:, : hidden.size(1)] = hidden
    valid = torch.nn.functional.pad(mask, (num_prefix, 1))
    valid[:, :num_prefix] = True
    case.check(f"{name}.decoder_hidden", padded, valid)


def test_one_word_utterance_in_a_padded_batch(case, tokenizer):
    """Reference defect C2: the intended result is that without padding."""
    defects = case.output_names("oneword_pad")
    states = tokenizer.encoder.encode_log_mel(case.input("single.audio_features"))
    num_tokens = case.input("single.asr_token_ids").size(1)
    assert defects
    for name in defects:
        padding = int(name.split(".")[0].removeprefix("oneword_pad"))
        tokens, lengths, words = inputs(case, "single", num_tokens + padding)
        out = tokenizer.encode(states, tokens, lengths, words)

        case.check("single.pooled", out.features[:, :num_tokens])
        assert not torch.allclose(out.features[0, :num_tokens], case.output(name))


def test_codes_per_word(case, tokenizer):
    tokens, lengths, words = inputs(case, "batch")
    codes = case.output("batch.quantized_indices")

    per_word = first_of_words(codes, words, lengths)

    for row, length in enumerate(lengths.tolist()):
        for word in range(per_word.size(1)):
            found = (words[row, :length] == word).nonzero()
            expected = codes[row, found[0, 0]] if len(found) else IGNORE
            assert (per_word[row, word] == expected).all()
