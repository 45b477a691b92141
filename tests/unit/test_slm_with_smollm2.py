"""The spoken LM around a real LLM, as the embedded recipe trains it."""

import numpy as np
import pytest
import torch
from tiny_slm import LATENT_DIM, NUM_CODEBOOKS, TASTE_DIM, make_codebooks

from espnet_taste.sampling import Sampler
from espnet_taste.slm.continuation import SpokenContinuer
from espnet_taste.slm.delay import collate, delay_words
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.slm.likelihood import score
from espnet_taste.slm.model import SpokenLM
from espnet_taste.slm.text import LlmText, load_llm
from espnet_taste.slm.vocabulary import read_vocabulary
from espnet_taste.words import encode_words

pytestmark = pytest.mark.weights

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
WORDS = "the old man looked at the sea and thought of his youth".split()


@pytest.fixture(scope="module")
def text():
    return LlmText(LLM)


@pytest.fixture(scope="module")
def slm():
    lora = {"r": 4, "alpha": 8, "dropout": 0.0}
    return SpokenLM(load_llm(LLM), make_codebooks(), TASTE_DIM, lora=lora)


@pytest.fixture(scope="module")
def batch(text):
    encoded = encode_words(WORDS, text.encode)
    layout = delay_words(encoded.tokens, encoded.words, 1)
    rng = np.random.default_rng(0)
    return collate([layout], [rng.integers(0, 9, (len(WORDS), NUM_CODEBOOKS))])


def test_the_text_llm_scores_as_it_does_alone(slm, text, batch):
    scores = score(slm.eval(), batch)

    tokens = torch.tensor([[slm.sos_id, *batch.tokens[0, :-1].tolist()]])
    logits = load_llm(LLM)(tokens).logits[0, :-1].float()
    labels = tokens[0, 1:]
    alone = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(scores.text_llm_ce[0], alone, rtol=0.01, atol=0.0)
    assert alone / len(labels) < 5  # it knows English


def test_it_learns_words_and_codes(slm, batch):
    trained = [p for p in slm.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3)
    noise = torch.zeros(1, len(WORDS), LATENT_DIM)
    losses = []
    for _ in range(6):
        out = slm(batch, noise)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((out.text_ce.item(), out.taste_loss.item()))

    assert losses[-1][0] < losses[0][0] and losses[-1][1] < losses[0][1]


def test_it_continues_in_english_words_with_codes(slm, text, batch):
    continuer = SpokenContinuer(
        slm,
        text.encode,
        text.decode,
        vocabulary=read_vocabulary(text.tokenizer, slm.output_layer.weight.size(0)),
        settings=CompletionSettings(
            extra_words=5, max_tokens=20, text=Sampler(top_p=0.9)
        ),
    )
    generator = torch.Generator().manual_seed(0)
    codes = batch.word_codes[0].numpy()

    result = continuer.continue_prompt(WORDS, codes, source=generator)

    assert 5 <= len(result.words) == len(result.codes) <= 16
    assert all(word and not word.startswith("<|") for word in result.words)
    assert result.text.split() == result.words
