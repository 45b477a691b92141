"""Text and latent losses: chunks, padding, gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from espnet_taste.layers.latent_head import Latent
from espnet_taste.slm import losses
from espnet_taste.slm.losses import (
    LossWeights,
    latent_losses,
    masked_mean,
    text_losses,
)
from espnet_taste.types import IGNORE

VOCAB_SIZE = 11


class CountingHead(nn.Linear):
    """An output layer that remembers how many positions it saw at a time."""

    def __init__(self):
        torch.manual_seed(1)
        super().__init__(4, VOCAB_SIZE, bias=False)
        self.requires_grad_(False)
        self.sizes = []

    def forward(self, hidden):
        self.sizes.append(len(hidden))
        return super().forward(hidden)


@pytest.fixture
def head():
    return CountingHead()


@pytest.fixture
def data():
    torch.manual_seed(2)
    labels = torch.randint(0, VOCAB_SIZE, (3, 5))
    labels[1, 3:] = labels[2, 1:] = IGNORE
    return torch.randn(3, 5, 4), labels, torch.randn(3, 5, 4)


def whole_loss(hidden, labels, head, reference, share):
    """Compute the same without chunks, from one big table of logits."""
    logits = F.linear(hidden, head.weight).flatten(0, 1)
    target = F.linear(reference, head.weight).flatten(0, 1).softmax(-1)
    valid = labels.flatten() != IGNORE
    ce = F.cross_entropy(logits, labels.flatten(), ignore_index=IGNORE)
    ratio = target.log() - logits.log_softmax(-1)
    kl = (target * ratio).sum(-1)[valid].mean()
    return (1 - share) * ce + share * kl


@pytest.mark.parametrize("max_logits", [1, 4 * VOCAB_SIZE, 10**6])
def test_chunks_give_the_loss_and_gradient_of_the_whole(
    monkeypatch, head, data, max_logits
):
    monkeypatch.setattr(losses, "MAX_CPU_LOGITS", max_logits)
    hidden, labels, reference = data
    ours = hidden.clone().requires_grad_()
    theirs = hidden.clone().requires_grad_()

    out = text_losses(ours, labels, head, reference=reference, kl_share=0.7)
    (3 * out.mixed / out.count).backward()
    expected = whole_loss(theirs, labels, head, reference, 0.7)
    (3 * expected).backward()

    torch.testing.assert_close(out.mixed / out.count, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    mixed = 0.3 * out.ce.sum() + 0.7 * out.kl.sum()
    torch.testing.assert_close(out.mixed.detach(), mixed)


def test_no_more_than_a_chunk_of_logits_exists(monkeypatch, head, data):
    monkeypatch.setattr(losses, "MAX_CPU_LOGITS", 4 * VOCAB_SIZE + 3)
    hidden, labels, reference = data

    text_losses(hidden, labels, head, reference=reference, kl_share=0.5)

    assert max(head.sizes) == 4
    assert sum(head.sizes) == 2 * labels.numel()


def test_padding_has_no_loss_no_hit_and_no_gradient(head, data):
    hidden, labels, reference = data
    hidden = hidden.requires_grad_()

    out = text_losses(hidden, labels, head, reference=reference, kl_share=0.5)
    out.mixed.backward()

    padding = labels == IGNORE
    assert not out.ce[padding].any() and not out.kl[padding].any()
    assert not out.hits[padding].any() and not hidden.grad[padding].any()
    assert (hidden.grad[~padding] != 0).any(-1).all()
    assert int(out.count) == int((~padding).sum())


def test_padding_may_hold_anything(head, data):
    """Rows are any value behind their end; NaN is the worst of them."""
    hidden, labels, reference = data
    clean = text_losses(hidden, labels, head, reference=reference, kl_share=0.5)
    padding = (labels == IGNORE)[..., None]
    spoilt = hidden.masked_fill(padding, float("nan")).requires_grad_()

    reference = reference.masked_fill(padding, float("nan"))
    out = text_losses(spoilt, labels, head, reference=reference, kl_share=0.5)
    out.mixed.backward()

    torch.testing.assert_close(out.mixed.detach(), clean.mixed.detach())
    torch.testing.assert_close(out.ce, clean.ce)
    torch.testing.assert_close(out.kl, clean.kl)
    assert torch.isfinite(spoilt.grad).all()


def test_hits_are_the_best_tokens(head, data):
    hidden, labels, _ = data
    best = F.linear(hidden, head.weight).argmax(-1)
    labels = torch.where(torch.tensor([[True], [False], [True]]), best, labels)

    hits = text_losses(hidden, labels, head).hits

    assert hits[0].all() and hits[2].all()
    assert torch.equal(hits[1], best[1] == labels[1])


def test_the_divergence_from_itself_is_zero(head, data):
    hidden, labels, _ = data

    out = text_losses(hidden, labels, head, reference=hidden, kl_share=1.0)

    assert out.mixed.item() == pytest.approx(0.0, abs=1e-5)
    assert out.ce.sum() > 0


def test_without_reference_the_loss_is_the_cross_entropy(head, data):
    hidden, labels, _ = data

    out = text_losses(hidden, labels, head, kl_share=0.9)

    expected = F.cross_entropy(
        F.linear(hidden, head.weight).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )
    torch.testing.assert_close(out.mixed, expected)
    assert not out.kl.any()


def test_a_batch_without_labels_has_loss_zero(head, data):
    hidden, labels, _ = data
    hidden = hidden.requires_grad_()

    out = text_losses(hidden, torch.full_like(labels, IGNORE), head)
    out.mixed.backward()

    assert out.mixed.item() == 0 and not hidden.grad.any()


def test_half_precision_states_keep_their_dtype(head, data):
    hidden, labels, reference = data
    hidden = hidden.bfloat16().requires_grad_()
    head = head.bfloat16()

    out = text_losses(
        hidden, labels, head, reference=reference.bfloat16(), kl_share=0.5
    )
    out.mixed.backward()

    assert out.ce.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16


def test_latent_losses_in_figures():
    latent = Latent(
        mu=torch.tensor([[1.0, 0.0]]),
        logvar=torch.zeros(2),
        value=torch.tensor([[2.0, 1.0]]),
    )

    mse, kl = latent_losses(latent, torch.zeros(1, 2))

    assert mse.tolist() == [(4.0 + 1.0) / 2]
    assert kl.tolist() == [0.5 * (1.0 + 0.0) / 2]


def test_masked_mean_leaves_padding_out_even_if_it_is_not_finite():
    values = torch.tensor([[[1.0, 2.0], [float("nan"), 9.0]], [[3.0, 4.0], [5.0, 6.0]]])
    mask = torch.tensor([[True, False], [True, True]])

    assert masked_mean(values, mask).tolist() == [3.0, 4.0]
    assert masked_mean(values[..., 1], torch.zeros(2, 2).bool()).item() == 0.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": -0.1}, "weight 'text' must be >= 0"),
        ({"text_kl": 1.2}, "share 'text_kl' must be in 0..1"),
        ({"latent_kl": -1}, "share 'latent_kl' must be in 0..1"),
    ],
)
def test_weights_out_of_range_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LossWeights(**values)
