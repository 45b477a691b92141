"""Weighted fusion: TASTE first, softmax weights, both of them trained."""

import pytest
import torch

from espnet_taste.layers.fusion import WeightedFusion


def test_taste_is_first():
    fusion = WeightedFusion()
    fusion.weights.data = torch.tensor([0.9, 0.1]).log()

    mixed = fusion(torch.tensor([10.0]), torch.tensor([100.0]))

    assert mixed.item() == pytest.approx(0.9 * 10 + 0.1 * 100)


@pytest.mark.parametrize(
    ("init", "share"), [("balance", 0.5), ("zero_audio", 0.0179862)]
)
def test_initial_share_of_taste(init, share):
    assert WeightedFusion(init)(torch.ones(1), torch.zeros(1)).item() == pytest.approx(
        share
    )


def test_weights_receive_opposite_gradients():
    fusion = WeightedFusion()
    fusion(torch.tensor([3.0]), torch.tensor([1.0])).backward()

    torch.testing.assert_close(fusion.weights.grad, torch.tensor([0.5, -0.5]))


def test_normalize_removes_scale_and_mean():
    generator = torch.Generator().manual_seed(0)
    # Wide enough that the normalisation's eps does not show in a tenth of it.
    taste, text = 5 * torch.randn(2, 4, 8, generator=generator)
    fusion = WeightedFusion(normalize=True)

    torch.testing.assert_close(
        fusion(5 * taste + 3, text), fusion(taste, 2 * text - 1), atol=1e-3, rtol=0
    )
    assert not torch.allclose(fusion(taste, text), WeightedFusion()(taste, text))


def test_refuses_streams_of_different_length():
    with pytest.raises(ValueError, match=r"TASTE \(2, 3\) and text \(2, 4\)"):
        WeightedFusion()(torch.zeros(2, 3), torch.zeros(2, 4))


def test_refuses_an_unknown_init():
    with pytest.raises(ValueError, match="'balance', 'zero_audio'.*got 'both'"):
        WeightedFusion("both")
