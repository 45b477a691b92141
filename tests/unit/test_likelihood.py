"""Scores of single utterances add up to what training reports."""

import pytest
import torch
from tiny_slm import LATENT_DIM, NUM_CODEBOOKS, make_batch, make_llm, make_slm

from espnet_taste.slm.delay import DelayBatch
from espnet_taste.slm.likelihood import log_likelihoods, score
from espnet_taste.slm.losses import LossWeights

SIZES = [[1, 2, 1], [3], [1, 1, 2, 2]]


@pytest.mark.parametrize("head", ["latent", "linear", "both"])
@torch.no_grad()
def test_sums_over_utterances_give_the_means_of_the_batch(head):
    """Reference defect C24: means of batches are summed, then divided by vectors."""
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


@torch.no_grad()
def test_an_llm_that_was_trained_itself_is_compared_with_what_it_was():
    batch = make_batch(SIZES)
    weights = LossWeights(text_kl=0.0)
    slm = make_slm(lora=None, train_llm=True, weights=weights)
    for parameter in slm.llm.base_model.layers.parameters():
        parameter.mul_(1.1)

    scores = score(slm.eval(), batch, text_llm=make_llm().eval())

    before = score(make_slm(lora=None), batch)
    torch.testing.assert_close(scores.text_llm_ce, before.text_llm_ce)
    assert not torch.allclose(scores.text_alone_ce, before.text_alone_ce)
    with pytest.raises(ValueError, match="itself was trained; give text_llm"):
        score(slm, batch)


@torch.no_grad()
def test_exchanged_codes_are_read_by_the_head_too():
    batch, other = make_batch(SIZES), make_batch(SIZES, seed=1)
    slm = make_slm(head_skip=True)
    slm.taste_projection.weight.zero_()  # the LLM itself reads nothing of them
    slm.taste_projection.bias.zero_()

    own, exchanged = score(slm, batch), score(slm, batch, other.word_codes)

    torch.testing.assert_close(own.text_ce, exchanged.text_ce)
    errors = [s.taste_terms["latent_error"] for s in (own, exchanged)]
    is_long = torch.tensor([len(sizes) > 1 for sizes in SIZES])
    assert not torch.isclose(*errors)[is_long].any()
    assert torch.isclose(*errors)[~is_long].all()  # nothing is read before one word


@torch.no_grad()
def test_the_adapted_llm_is_scored_on_text_alone_too():
    batch = make_batch(SIZES)
    slm = make_slm()

    scores = score(slm, batch)

    for row, count in enumerate([4, 3, 6]):
        tokens = batch.tokens[row, :count]
        inputs = torch.cat([torch.tensor([slm.sos_id]), tokens[:-1]])
        log_probs = slm.llm(inputs[None]).logits[0].log_softmax(-1)
        alone = -log_probs.gather(1, tokens[:, None]).sum()
        torch.testing.assert_close(scores.text_alone_ce[row], alone)
    assert not torch.allclose(scores.text_alone_ce, scores.text_llm_ce)
    plain = score(make_slm(lora=None), batch)
    assert torch.equal(plain.text_alone_ce, plain.text_llm_ce)


@pytest.mark.parametrize("head", ["latent", "linear"])
def test_codes_to_predict_stay_when_others_are_read(head):
    slm, batch = make_slm(head=head), make_batch(SIZES)
    read = make_batch(SIZES, seed=1).word_codes
    swapped = DelayBatch(batch.tokens, batch.taste_words, batch.label_words, read)

    own, other = score(slm, batch), score(slm, batch, read)

    assert torch.equal(other.text_ce, score(slm, swapped).text_ce)
    assert not torch.allclose(other.text_ce, own.text_ce)
    name = "latent_error" if head == "latent" else "code_ce"
    # The first word is predicted before any codes are read.
    hidden = slm.read(slm.embed(swapped))
    terms = slm.head.losses(
        slm.predict_words(hidden, batch), batch.word_codes, slm.codebooks
    ).terms[name]
    torch.testing.assert_close(other.taste_terms[name][1], terms[1, 0])
    torch.testing.assert_close(own.taste_terms[name][1], other.taste_terms[name][1])
    assert not torch.allclose(own.taste_terms[name][2], other.taste_terms[name][2])


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


@pytest.mark.parametrize("function", [score, log_likelihoods])
def test_train_mode_is_refused(function):
    with pytest.raises(ValueError, match="in train mode"):
        function(make_slm().train(), make_batch(SIZES))


@pytest.mark.parametrize("head", ["latent", "linear", "both"])
def test_log_likelihoods_add_up_to_the_losses(head):
    slm, batch = make_slm(head=head), make_batch(SIZES)

    found, scores = log_likelihoods(slm, batch), score(slm, batch)

    torch.testing.assert_close(-found.text.sum(1), scores.text_ce)
    assert found.num_tokens.equal(scores.num_tokens)
    assert found.num_words.equal(scores.num_words)
    if head == "linear":
        torch.testing.assert_close(-found.codes.sum(1), scores.taste_terms["code_ce"])
    for row, count in enumerate(found.num_tokens.tolist()):
        assert (found.text[row, :count] < 0).all()
        assert (found.text[row, count:] == 0).all()


def test_the_latent_has_the_density_of_its_gaussian():
    slm, batch = make_slm(head="latent"), make_batch(SIZES)
    with torch.no_grad():
        slm.head.latent.logvar.copy_(torch.linspace(-1.0, 1.0, LATENT_DIM))
        latent = slm.predict_words(slm.read(slm.embed(batch)), batch)
    gaussian = torch.distributions.Normal(latent.mu, (0.5 * latent.logvar).exp())
    expected = gaussian.log_prob(slm.codebooks.sum_codes(batch.word_codes)).sum(-1)

    found = log_likelihoods(slm, batch)

    is_word = batch.word_codes[..., 0] >= 0
    assert found.codes.shape == (*is_word.shape, 1)
    torch.testing.assert_close(found.codes[..., 0][is_word], expected[is_word])
    assert (found.codes[~is_word] == 0).all()


@pytest.mark.parametrize("head", ["latent", "linear", "both"])
def test_a_batch_is_as_likely_as_its_items_alone(head):
    slm = make_slm(head=head)
    together = log_likelihoods(slm, make_batch(SIZES))

    for row, sizes in enumerate(SIZES):
        batch = make_batch(SIZES)
        count, words = sum(sizes), len(sizes)
        alone = DelayBatch(
            batch.tokens[row : row + 1, : count + slm.delay],
            batch.taste_words[row : row + 1, : count + slm.delay],
            batch.label_words[row : row + 1, : count + slm.delay + 1],
            batch.word_codes[row : row + 1, :words],
        )
        found = log_likelihoods(slm, alone)
        torch.testing.assert_close(found.text[0], together.text[row, :count])
        torch.testing.assert_close(found.codes[0], together.codes[row, :words])
