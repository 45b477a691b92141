"""The adapted LLM, written for plain peft and plain transformers."""

from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from tiny_slm import make_llm, make_slm
from transformers import AutoModelForCausalLM

from espnet_taste.pipeline.lm_export import write_adapters, write_merged

IDS = torch.tensor([[3, 9, 4, 7]])


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def make_model(**options):
    return SimpleNamespace(
        slm=make_slm(**options),
        args=SimpleNamespace(llm="some/llm"),
        text=SimpleNamespace(tokenizer=FakeTokenizer()),
    )


@torch.no_grad()
def logits_of(llm):
    return llm(IDS).logits


def test_adapters_load_with_plain_peft_on_the_plain_llm(tmp_path):
    model = make_model()
    write_adapters(model, tmp_path / "adapters")

    loaded = PeftModel.from_pretrained(make_llm(), str(tmp_path / "adapters"))

    assert torch.equal(logits_of(loaded), logits_of(model.slm.llm))
    assert not torch.allclose(logits_of(loaded), logits_of(make_llm()))
    config = (tmp_path / "adapters" / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "some/llm"' in config


def test_a_merged_llm_is_a_plain_model_and_says_the_same(tmp_path):
    model = make_model()
    before = logits_of(model.slm.llm)
    write_merged(model, tmp_path / "merged")

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")

    assert type(loaded) is type(make_llm())
    torch.testing.assert_close(logits_of(loaded), before, atol=1e-5, rtol=1e-5)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_a_merged_llm_has_the_precision_that_is_asked_for(tmp_path):
    slm = make_model(llm=make_llm().bfloat16())
    write_merged(slm, tmp_path / "as_trained")
    write_merged(make_model(), tmp_path / "asked", "bfloat16")

    for name in ("as_trained", "asked"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto")
        assert loaded.dtype == torch.bfloat16


def test_the_precision_of_the_training_is_not_the_one_of_this_device(tmp_path):
    """A CPU that is slow at bfloat16 holds the LLM in float32."""
    model = make_model()
    model.args.llm_dtype = "bfloat16"
    assert model.slm.causal_lm.dtype == torch.float32

    write_merged(model, tmp_path / "merged")

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert loaded.dtype == torch.bfloat16


def test_without_adapters_there_are_none_to_write(tmp_path):
    with pytest.raises(ValueError, match="this spoken LM has no adapters"):
        write_adapters(make_model(lora=None), tmp_path / "adapters")
    assert not (tmp_path / "adapters").exists()


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(FileExistsError, match="name another target"):
        write_merged(make_model(), tmp_path)
