"""A converted folder becomes our modules, with no weight left to chance."""

import pytest
import torch
from released_checkpoint import read_folder
from safetensors.torch import load_file, save_file
from tiny_released import (
    BACKBONE,
    CODEBOOK,
    CONFIG,
    CONV,
    EMBEDDING,
    LLM_WIDTH,
    LM_HEAD,
    released_state,
    write_checkpoint,
)
from tokenizers import pre_tokenizers
from transformers import WhisperTokenizer

from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.errors import TensorMismatch, WrongDigest
from espnet_taste.convert.load import load_released, load_spoken_lm
from espnet_taste.tasks.slm import TasteSpokenLMTask
from espnet_taste.tasks.tokenizer import TasteTokenizerTask


@pytest.fixture(scope="module")
def state():
    return released_state()


@pytest.fixture
def folder(state, tmp_path, monkeypatch):
    monkeypatch.setenv("ESPNET_TASTE_CACHE", str(tmp_path / "cache"))
    source = write_checkpoint(tmp_path / "source", state)
    options = Options(BACKBONE)
    convert(source, tmp_path / "ours", to="espnet_taste", options=options)
    return tmp_path / "ours"


def parts_of(model):
    return model.tokenizer, model.unit_lm, model.spoken_lm


def test_weights_are_those_of_the_files(state, folder):
    """Reference defects C3 and C5: a fresh spoken LM, a made-up output layer."""
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


@pytest.mark.parametrize("epsilon", [1e-5, 0.25])
def test_the_norms_of_the_llm_have_the_epsilon_of_the_config(state, tmp_path, epsilon):
    """No golden case tells one from another: their states are large."""
    text = {**CONFIG["text_config"], "rms_norm_eps": epsilon}
    source = write_checkpoint(
        tmp_path / "source", state, config={**CONFIG, "text_config": text}
    )
    convert(source, tmp_path / "ours", to="espnet_taste", options=Options(BACKBONE))

    llm = load_released(tmp_path / "ours", llm_dtype=torch.float32).spoken_lm.causal_lm

    x = 0.1 * torch.randn(3, LLM_WIDTH)
    scale = (x.square().mean(-1, keepdim=True) + epsilon).rsqrt()
    norms = [module for module in llm.modules() if "RMSNorm" in type(module).__name__]
    assert len(norms) == 3
    for norm in norms:
        torch.testing.assert_close(norm(x), norm.weight * x * scale)


@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_dtypes(folder, dtype, with_bfloat16):
    model = load_released(folder, llm_dtype=dtype)
    llm = model.spoken_lm.causal_lm

    assert {p.dtype for p in model.tokenizer.parameters()} == {torch.float32}
    expected = dtype or torch.bfloat16
    assert llm.lm_head.weight.dtype == expected
    attention = llm.model.layers[0].self_attn.q_proj
    assert attention.base_layer.weight.dtype == expected
    assert attention.lora_A["default"].weight.dtype == torch.float32


def test_the_llm_is_in_float32_where_bfloat16_is_slow(folder, without_bfloat16):
    llms = [load_spoken_lm(folder).causal_lm, load_released(folder).spoken_lm.causal_lm]
    asked = load_spoken_lm(folder, llm_dtype=torch.bfloat16).causal_lm

    assert [llm.lm_head.weight.dtype for llm in llms] == [torch.float32] * 2
    assert asked.lm_head.weight.dtype == torch.bfloat16


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


def assert_same(module, other):
    ours, theirs = module.state_dict(), other.state_dict()
    assert set(ours) == set(theirs)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_task_loads_the_spoken_lm(folder):
    path = folder / "slm" / "model.safetensors"

    model, _ = TasteSpokenLMTask.build_model_from_file(None, path)

    assert_same(model.slm, load_released(folder).spoken_lm)


def test_the_task_loads_the_tokenizer(folder):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer(vocab={c: i for i, c in enumerate(letters)}, merges=[])
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.save_pretrained(folder / "whisper")
    path = folder / "taste" / "model.safetensors"

    model, _ = TasteTokenizerTask.build_model_from_file(None, path)

    released = load_released(folder)
    for part in ("encoder", "aggregator", "quantizer"):
        assert_same(getattr(model, part), getattr(released.tokenizer, part))
    assert_same(model.decoder, released.unit_lm)


def test_the_task_refuses_a_truncated_file(folder):
    path = folder / "slm" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ValueError, match="not a readable checkpoint"):
        TasteSpokenLMTask.build_model_from_file(None, path)


def test_the_spoken_lm_alone_is_the_one_of_the_whole(folder):
    alone, whole = load_spoken_lm(folder), load_released(folder).spoken_lm

    states = alone.state_dict(), whole.state_dict()
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[1].items():
        assert torch.equal(states[0][name], tensor), name
    assert not alone.training


def test_the_spoken_lm_is_read_without_the_tokenizer(folder):
    """Nor is what is not read compared with its sha256."""
    (folder / "whisper" / "model.safetensors").write_bytes(b"broken")

    load_spoken_lm(folder)

    (name,) = [
        path for path in (folder / "slm").iterdir() if "safetensors" in path.name
    ]
    name.write_bytes(b"broken")
    with pytest.raises(WrongDigest, match="slm"):
        load_spoken_lm(folder)
