"""Byte dropout: the share it drops, the expectation it keeps, the seed it follows."""

import pytest
import torch

from espnet_taste.layers.byte_dropout import ByteDropout, choose_dropped


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_drops_the_share_and_keeps_the_mean(dtype, probability):
    torch.manual_seed(0)
    x = torch.ones(400, 501, dtype=dtype)

    y = ByteDropout(probability)(x)

    assert y.dtype == dtype and y.shape == x.shape
    kept = (y != 0).double().mean().item()
    assert kept == pytest.approx(1 - probability, abs=0.005)
    scale = y.max().item()
    assert set(y.unique().tolist()) == {0.0, scale}
    # bfloat16 has eight bits for the scale.
    tolerance = 0.02 if dtype == torch.bfloat16 else 0.01
    assert kept * scale == pytest.approx(1.0, rel=tolerance)


def test_scale_follows_the_rounded_probability():
    y = ByteDropout(0.1)(torch.ones(1000))

    assert y.max().item() == pytest.approx(256 / 230, rel=1e-6)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.9])
def test_a_rounded_scale_keeps_the_expectation(probability):
    """With 26 of 256 dropped, bfloat16's scale for 0.1 loses a third of a percent."""
    dropped = choose_dropped(probability, torch.bfloat16)
    scale = torch.tensor(256 / (256 - dropped), dtype=torch.bfloat16)

    assert dropped == pytest.approx(probability * 256, abs=1.0)
    assert (256 - dropped) / 256 * scale.item() == pytest.approx(1.0, abs=2e-3)


def test_gradient_is_the_mask():
    x = torch.randn(50, requires_grad=True)
    y = ByteDropout(0.3)(x)
    y.sum().backward()

    torch.testing.assert_close(y, x * x.grad)
    assert (x.grad == 0).any()


def test_follows_the_seed_and_draws_anew_every_time():
    dropout, x = ByteDropout(0.5), torch.ones(100)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)

    assert dropout(x).equal(first)
    assert not first.equal(second)


@pytest.mark.parametrize("probability", [0.0, 0.001])
def test_a_probability_that_rounds_to_nothing_drops_nothing(probability):
    x = torch.randn(1000)

    assert ByteDropout(probability)(x).equal(x)


def test_is_still_in_eval_mode():
    x = torch.randn(100)

    assert ByteDropout(0.5).eval()(x) is x


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_refuses_what_is_no_probability(probability):
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
        ByteDropout(probability)
