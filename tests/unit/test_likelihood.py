"""Scores of single utterances add up to what training reports."""

import pytest
import torch
from tiny_slm import NUM_CODEBOOKS, make_batch, make_slm

from espnet_taste.slm.likelihood import score
from espnet_taste.slm.losses import LossWeights

SIZES = [[1, 2, 1], [3], [1, 1, 2, 2]]


@pytest.mark.parametrize("head", ["latent", "linear"])
@torch.no_grad()
def test_sums_over_utterances_give_the_means_of_the_batch(head):
    slm, batch = make_slm(head=head), make_batch(SIZES)

    scores, out = score(slm, batch), slm(batch)

    num_tokens, num_words = scores.num_tokens.sum(), scores.num_words.sum()
    assert (num_tokens, num_words) == (out.num_tokens, out.num_words)
    torch.testing.assert_close(scores.text_ce.sum() / num_tokens, out.text_ce)
    accuracy = scores.text_hits.sum() / num_tokens
    torch.testing.assert_close(accuracy, out.text_accuracy)
    hits = scores.code_hits.sum(0) / num_words
    torch.testing.assert_close(hits, out.code_accuracy)
    assert scores.taste_terms.keys() == out.taste_terms.keys()
    for name, sums in scores.taste_terms.items():
        torch.testing.assert_close(sums.sum(0) / num_words, out.taste_terms[name])


def test_the_text_llm_is_scored_without_adapters_and_speech():
    batch = make_batch(SIZES)
    other = make_batch(SIZES, seed=1)
    exchanged = type(batch)(
        batch.tokens, batch.taste_words, batch.label_words, other.word_codes
    )
    slm = make_slm()

    first, second = score(slm, batch), score(slm, exchanged)

    assert torch.equal(first.text_llm_ce, second.text_llm_ce)
    assert not torch.allclose(first.text_ce, second.text_ce)
    reference = make_slm(lora=None, weights=LossWeights(text_kl=1.0))
    torch.testing.assert_close(first.text_llm_ce, score(reference, batch).text_llm_ce)


def test_padding_gives_no_hit(monkeypatch):
    slm, batch = make_slm(), make_batch(SIZES)
    monkeypatch.setattr(
        slm.head, "choose", lambda *_: torch.zeros_like(batch.word_codes)
    )

    assert torch.equal(score(slm, batch).code_hits, (batch.word_codes == 0).sum(1))


def test_shapes():
    scores = score(make_slm(head="linear"), make_batch(SIZES))

    assert scores.num_tokens.tolist() == [4, 3, 6]
    assert scores.num_words.tolist() == [3, 1, 4]
    assert scores.code_hits.shape == (3, NUM_CODEBOOKS)
    assert scores.taste_terms["code_ce"].shape == (3, NUM_CODEBOOKS)


def test_train_mode_is_refused():
    with pytest.raises(ValueError, match="in train mode"):
        score(make_slm().train(), make_batch(SIZES))
