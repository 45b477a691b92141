"""Build our speech tokenizer from the weights of a golden case."""

from reference_names import DECODER, ENCODER, RVQ, rvq_state
from transformers import WhisperConfig
from transformers.models.whisper import modeling_whisper

from espnet_taste.tokenizer.aggregator import WhisperAggregator, build_decoder
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.model import SpeechTokenizer
from espnet_taste.tokenizer.quantizer import RvqQuantizer


def build_encoder(case, value_layer):
    """Return the encoder, whose values enter layer ``value_layer``."""
    config = WhisperConfig(**case.config["whisper"], attn_implementation="sdpa")
    encoder = modeling_whisper.WhisperEncoder(config)
    encoder.load_state_dict(case.state(ENCODER))
    return WhisperEncoder.from_module(encoder, value_layer).eval()


def build_aggregator(case, prefix_ids):
    """Return the aggregator, with the released value projections."""
    config = WhisperConfig(**case.config["whisper"], attn_implementation="sdpa")
    decoder = build_decoder(config)
    decoder.load_state_dict(case.state(DECODER))
    return WhisperAggregator.from_module(
        decoder, prefix_ids, value_identity=False
    ).eval()


def build_quantizer(case):
    """Return the quantizer."""
    sizes = case.config["quantizer"]
    quantizer = RvqQuantizer(
        sizes.get("dim", case.config.get("taste_width")),
        sizes["codebook_dim"],
        sizes["codebook_size"],
        sizes["num_quantizers"],
    )
    state = rvq_state(case.state(RVQ), quantizer.num_codebooks)
    quantizer.rvq.load_state_dict(state)
    return quantizer.eval()


def build_tokenizer(case, value_layer, prefix_ids):
    """Return the three in a row."""
    return SpeechTokenizer(
        build_encoder(case, value_layer),
        build_aggregator(case, prefix_ids),
        build_quantizer(case),
    ).eval()
