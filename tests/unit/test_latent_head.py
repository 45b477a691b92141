"""The latent head: what it takes, and what its gradient is of."""

import pytest
import torch

from espnet_taste.layers.latent_head import LatentHead


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = LatentHead(5, 3)
    torch.nn.init.normal_(head.logvar)
    return head


def test_eval_takes_one_deviation_above_the_mean(head):
    """Reference defect C9, kept: released weights were evaluated this way."""
    latent = head.eval()(torch.randn(2, 4, 5))

    sigma = (0.5 * head.logvar).exp()
    torch.testing.assert_close(latent.value, latent.mu + sigma)


def test_eval_can_take_the_mean():
    head = LatentHead(5, 3, eval_latent="mu").eval()

    latent = head(torch.randn(2, 5))

    assert torch.equal(latent.value, latent.mu)


def test_training_adds_the_noise_it_is_given(head):
    noise = torch.randn(2, 4, 3)

    latent = head.train()(torch.randn(2, 4, 5), noise)

    sigma = (0.5 * head.logvar).exp()
    torch.testing.assert_close(latent.value, latent.mu + sigma * noise)


def test_the_gradient_is_that_of_mean_plus_deviation(head):
    hidden, noise = torch.randn(4, 5), torch.randn(4, 3)

    head.train()(hidden, noise).value.square().sum().backward()
    ours = [parameter.grad.clone() for parameter in head.parameters()]

    head.zero_grad()
    latent = head(hidden, noise)
    upstream = 2 * latent.value.detach()
    above = head.mu(hidden) + (0.5 * head.logvar).exp()
    (above * upstream).sum().backward()
    for found, parameter in zip(ours, head.parameters()):
        torch.testing.assert_close(found, parameter.grad)


def test_training_draws_its_own_noise(head):
    hidden = torch.zeros(2000, 5)

    latent = head.train()(hidden)

    spread = (latent.value - latent.mu).std(0)
    torch.testing.assert_close(spread, (0.5 * head.logvar).exp(), rtol=0.1, atol=0.0)


def test_an_unknown_point_is_refused():
    with pytest.raises(ValueError, match="'mu_sigma' or 'mu', got 'mean'"):
        LatentHead(5, 3, eval_latent="mean")
