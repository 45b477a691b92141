"""A converted folder becomes our modules, with no weight left to chance."""

import pytest
import torch
from released_checkpoint import read_folder
from safetensors.torch import load_file, save_file
from tiny_released import (
    BACKBONE,
    CODEBOOK,
    CONV,
    EMBEDDING,
    LM_HEAD,
    released_state,
    write_checkpoint,
)

from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.errors import TensorMismatch, WrongDigest
from espnet_taste.convert.load import load_released


@pytest.fixture(scope="module")
def state():
    return released_state()


@pytest.fixture
def folder(state, tmp_path):
    source = write_checkpoint(tmp_path / "source", state)
    options = Options(BACKBONE)
    convert(source, tmp_path / "ours", to="espnet_taste", options=options)
    return tmp_path / "ours"


def parts_of(model):
    return model.tokenizer, model.unit_lm, model.spoken_lm


def test_weights_are_those_of_the_files(state, folder):
    model = load_released(folder)
    tokenizer, _, spoken_lm = parts_of(model)
    llm = spoken_lm.causal_lm

    assert torch.equal(tokenizer.encoder.encoder.conv1.weight, state[CONV].float())
    codebook = tokenizer.quantizer.rvq.codebooks[1].embed
    assert torch.equal(codebook, state[CODEBOOK][0])
    assert torch.equal(llm.lm_head.weight, state[LM_HEAD])
    assert torch.equal(llm.model.embed_tokens.weight, state[EMBEDDING])
    saved = read_folder(folder / "slm")
    for name, tensor in spoken_lm.state_dict().items():
        if f"slm.{name}" in saved:
            assert torch.equal(tensor, saved[f"slm.{name}"]), name
    assert spoken_lm.codebooks is tokenizer.quantizer
    assert not any(part.training for part in parts_of(model))


def test_nothing_is_left_without_memory(folder):
    for part in parts_of(load_released(folder)):
        tensors = dict(part.named_parameters()) | dict(part.named_buffers())
        assert [name for name, tensor in tensors.items() if tensor.is_meta] == []


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_dtypes(folder, dtype):
    model = load_released(folder, llm_dtype=dtype)
    llm = model.spoken_lm.causal_lm

    assert {p.dtype for p in model.tokenizer.parameters()} == {torch.float32}
    assert llm.lm_head.weight.dtype == (dtype or torch.bfloat16)
    attention = llm.model.layers[0].self_attn.q_proj
    assert attention.base_layer.weight.dtype == (dtype or torch.bfloat16)
    assert attention.lora_A["default"].weight.dtype == torch.float32


def test_the_rotations_are_those_of_a_fresh_llm(folder):
    llm = load_released(folder).spoken_lm.causal_lm
    fresh = type(llm)(llm.config)

    assert torch.equal(llm.model.rotary_emb.inv_freq, fresh.model.rotary_emb.inv_freq)
    assert llm.model.rotary_emb.inv_freq.abs().sum() > 0


def test_a_changed_file(folder):
    path = folder / "taste" / "model.safetensors"
    state = load_file(path)
    del state["decoder.fusion.weights"]
    save_file(state, path)

    with pytest.raises(WrongDigest, match="taste/model.safetensors"):
        load_released(folder)
    with pytest.raises(TensorMismatch, match="missing: decoder.fusion.weights"):
        load_released(folder, check_sha256=False)
