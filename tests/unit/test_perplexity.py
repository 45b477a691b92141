"""Texts under a text LLM: sums of each text alone."""

from types import SimpleNamespace

import pytest
import torch
from tiny_slm import SOS_ID, VOCAB_SIZE, make_llm

from espnet_taste.slm.perplexity import TextLM


class Letters:
    """A token a letter."""

    def __init__(self, bos=None, eos=None):
        self.tokenizer = SimpleNamespace(bos_token_id=bos, eos_token_id=eos)

    def encode(self, text):
        return [2 + ord(letter) % (VOCAB_SIZE - 2) for letter in text]


def make_lm(llm=None, text=None):
    lm = TextLM.__new__(TextLM)
    lm._build(text or Letters(), llm or make_llm())
    return lm


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_text_is_scored_behind_the_start_symbol(family):
    lm = make_lm(make_llm(family))

    (found,) = lm.score(["abc"])

    tokens = Letters().encode("abc")
    with torch.no_grad():
        logits = lm.llm(torch.tensor([[SOS_ID, *tokens[:-1]]])).logits[0]
    expected = -logits.log_softmax(-1)[range(3), tokens].sum()
    assert found.num_tokens == 3
    assert found.nats == pytest.approx(float(expected), rel=1e-5)


def test_a_batch_is_its_texts():
    lm = make_lm()
    texts = ["abcdef", "x", "", "hello you"]

    together = lm.score(texts)

    for text, found in zip(texts, together):
        (alone,) = lm.score([text])
        assert found.num_tokens == alone.num_tokens == len(text)
        assert found.nats == pytest.approx(alone.nats, rel=1e-5)
    assert lm.score([]) == []


def test_the_tokenizer_may_name_the_start():
    llm = make_llm()
    llm.config.bos_token_id = None

    assert make_lm(llm, Letters(bos=4)).start_id == 4
    assert make_lm(llm, Letters(eos=5)).start_id == 5
    with pytest.raises(ValueError, match="no symbol that a text could begin with"):
        make_lm(llm)


@pytest.mark.parametrize(
    "name", ["final_logit_softcapping", "logit_scale", "lm_head_multiplier"]
)
def test_an_llm_whose_logits_are_more_than_its_output_layer_is_refused(name):
    llm = make_llm()
    setattr(llm.config, name, 30.0)

    with pytest.raises(ValueError, match=f"llama changes its logits by '{name}'"):
        make_lm(llm)


def test_a_text_that_does_not_fit_is_named():
    llm = make_llm()
    llm.config.max_position_embeddings = 4

    with pytest.raises(ValueError, match="'abcde' has 5 tokens, the LLM reads 4"):
        make_lm(llm).score(["ab", "abcde"])
