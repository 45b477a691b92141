"""The table of names reads the same in both directions."""

import pytest
from tiny_released import BACKBONE, CONFIG, released_state

from espnet_taste.convert.architecture import read_official
from espnet_taste.convert.modules import expected_shapes
from espnet_taste.convert.names import TABLE, Place, to_ours, to_released

EXAMPLES = {
    "speech_decoder.llm.encoders.3.norm2.bias": (
        "taste/decoder.unit_encoder.layers.3.norm2.bias"
    ),
    "speech_decoder.audio_token_encoder.encoders.0.norm_mha.weight": (
        "taste/decoder.taste_encoder.layers.0.norm1.weight"
    ),
    "speech_decoder.text_encoder.embed.out.1.bias": (
        "taste/decoder.text_encoder.input_layer.1.bias"
    ),
    "audio_tower.vq.rvq.layers.2._codebook.embed_avg": (
        "taste/quantizer.rvq.codebooks.2.embed_sum"
    ),
    "spoken_lm.language_model.base_model.model.lm_head.weight": "llm/lm_head.weight",
    "spoken_lm.language_model.base_model.model.model.layers.1.mlp.up_proj.base_layer"
    ".weight": "llm/model.layers.1.mlp.up_proj.weight",
    "spoken_lm.language_model.base_model.model.model.layers.1.mlp.up_proj.lora_A"
    ".default"
    ".weight": "slm/slm.llm.base_model.model.model.layers.1.mlp.up_proj.lora_A.default"
    ".weight",
    "spoken_lm.extract_for_bridge_out_llm.b_logvar": "slm/slm.head.latent.logvar",
    "hift.conv_pre.weight_g": "vocoder/hift.conv_pre.weight_g",
}


@pytest.mark.parametrize(("released", "ours"), EXAMPLES.items())
def test_examples(released, ours):
    place, rule = to_ours(released)

    assert str(place) == ours
    assert to_released(place) == (released, rule)


def test_both_directions_agree_on_a_whole_checkpoint():
    released = [name for name in released_state() if ".mlps." not in name]
    places = [to_ours(name)[0] for name in released]

    assert [to_released(place)[0] for place in places] == released
    assert len(set(places)) == len(places)
    assert set(places) <= set(expected_shapes(read_official(CONFIG, BACKBONE)))


def test_no_rule_is_there_twice():
    assert len({rule.released for rule in TABLE}) == len(TABLE)
    assert len({(rule.part, rule.ours) for rule in TABLE}) == len(TABLE)


def test_names_without_a_rule():
    for name in ("encoder.weight", "audio_tower.vq.rvq.layers.x._codebook.embed"):
        with pytest.raises(KeyError, match=name):
            to_ours(name)
    with pytest.raises(KeyError, match="slm/lm_head.weight"):
        to_released(Place("slm", "lm_head.weight"))
