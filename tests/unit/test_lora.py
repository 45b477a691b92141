"""Adapters: where they go, what stays frozen, and that plain peft reads them."""

import pytest
import torch
from peft import PeftModel
from tiny_slm import make_llm

from espnet_taste.slm.lora import (
    adapters_disabled,
    attach_lora,
    load_lora,
    merge_lora,
    save_lora,
    set_adapter_mode,
)

TOKENS = torch.tensor([[3, 7, 1, 20, 5]])


def make_adapted(family="llama", **options):
    """Return an LLM with adapters that do something."""
    llm = attach_lora(
        make_llm(family), **{"r": 2, "alpha": 4, "dropout": 0.0, **options}
    )
    for name, parameter in llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return llm.eval()


def adapted_layers(llm):
    """Return the names of the adapted layers, without their position."""
    names = {name for name, _ in llm.named_parameters() if "lora_A" in name}
    return {name.split(".lora_A")[0].rsplit(".", 1)[1] for name in names}


@torch.no_grad()
def logits(llm):
    return llm(TOKENS).logits


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        (
            "llama",
            {"q_proj", "k_proj", "v_proj", "o_proj"}
            | {"gate_proj", "up_proj", "down_proj"},
        ),
        ("gpt2", {"c_attn", "c_proj", "c_fc"}),
    ],
)
def test_all_linear_layers_but_the_output_are_adapted(family, layers):
    assert adapted_layers(make_adapted(family)) == layers


def test_tied_embeddings_are_not_adapted():
    llm = make_llm("qwen2", tie_word_embeddings=True)
    adapted = attach_lora(llm, r=2, alpha=4, dropout=0.0)

    assert "lm_head" not in adapted_layers(adapted)


def test_layers_can_be_chosen():
    assert adapted_layers(make_adapted(targets=["q_proj"])) == {"q_proj"}


def test_adapters_are_put_on_and_loaded_without_warnings(tmp_path, recwarn):
    save_lora(make_adapted(), tmp_path)
    load_lora(make_llm(), tmp_path)

    assert not [w for w in recwarn if issubclass(w.category, FutureWarning)]


def test_new_adapters_change_nothing():
    """Reference defect C6: the zeros of a new adapter are overwritten by noise."""
    llm = make_llm()
    before = logits(llm)

    assert torch.equal(logits(attach_lora(llm, r=2, alpha=4).eval()), before)


def test_only_adapters_are_trainable():
    trainable = {n for n, p in make_adapted().named_parameters() if p.requires_grad}

    assert trainable and all("lora_" in name for name in trainable)


def test_the_released_size():
    """45 088 768 trained parameters: rank 64 on all layers of Llama 3.2 1B."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
    )
    with torch.device("meta"):
        llm = attach_lora(LlamaForCausalLM(config))

    trainable = [p.numel() for p in llm.parameters() if p.requires_grad]
    assert sum(trainable) == 45_088_768


def test_the_output_layer_is_refused():
    with pytest.raises(ValueError, match="must not name the output layer 'lm_head'"):
        attach_lora(make_llm(), targets=["q_proj", "lm_head"])


def test_a_target_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="query_key_value"):
        attach_lora(make_llm(), targets=["query_key_value"])
    with pytest.raises(ValueError, match="no layer 'v_prj'"):  # peft passes it over
        attach_lora(make_llm(), targets=["q_proj", "v_prj"])


def test_adapters_of_a_half_precision_base_are_float32():
    llm = attach_lora(make_llm().bfloat16(), r=2, alpha=4)

    dtypes = {p.dtype for p in llm.parameters() if p.requires_grad}
    assert dtypes == {torch.float32}
    assert logits(llm).dtype == torch.bfloat16


def test_disabled_adapters_give_the_base_exactly():
    base = logits(make_llm())
    llm = make_adapted()
    with_adapters = logits(llm)

    with adapters_disabled(llm):
        assert torch.equal(logits(llm), base)

    assert torch.equal(logits(llm), with_adapters)
    assert not torch.allclose(with_adapters, base)


@pytest.mark.parametrize("trainable", [True, False])
def test_disabling_leaves_the_gradient_flags_alone(trainable):
    llm = make_adapted()
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_(trainable and "lora_" in name)
    before = [p.requires_grad for p in llm.parameters()]

    with adapters_disabled(llm):
        pass

    assert [p.requires_grad for p in llm.parameters()] == before


def test_adapters_come_back_after_an_error():
    llm = make_adapted()
    with_adapters = logits(llm)

    with pytest.raises(RuntimeError, match="stop"), adapters_disabled(llm):
        raise RuntimeError("stop")

    assert torch.equal(logits(llm), with_adapters)


def test_the_base_has_no_dropout_in_training():
    llm = make_llm("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    llm = attach_lora(llm, r=2, alpha=4, dropout=0.0)
    before = logits(llm.eval())

    set_adapter_mode(llm, True)

    assert torch.equal(logits(llm), before)


def test_adapters_have_dropout_in_training_only():
    llm = make_adapted(dropout=0.5)
    plain = logits(llm)

    set_adapter_mode(llm, True)
    assert not torch.allclose(logits(llm), plain)
    set_adapter_mode(llm, False)
    assert torch.equal(logits(llm), plain)


def test_saved_adapters_load_by_plain_peft(tmp_path):
    llm = make_adapted()
    save_lora(llm, tmp_path / "adapters")

    loaded = PeftModel.from_pretrained(make_llm(), tmp_path / "adapters")

    assert torch.equal(logits(loaded), logits(llm))
    assert not (tmp_path / "adapters" / "model.safetensors").exists()


@pytest.mark.parametrize("trainable", [True, False])
def test_saved_adapters_load(tmp_path, trainable):
    llm = make_adapted()
    save_lora(llm, tmp_path)

    loaded = load_lora(make_llm(), tmp_path, trainable=trainable)

    assert torch.equal(logits(loaded), logits(llm))
    assert any(p.requires_grad for p in loaded.parameters()) == trainable


def test_a_folder_without_adapters_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        load_lora(make_llm(), tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_equals_unmerged(family):
    llm = make_adapted(family)
    before = logits(llm)

    merged = merge_lora(llm)

    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), before, atol=1e-4, rtol=1e-4)
