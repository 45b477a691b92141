"""Weighted fusion: TASTE first, softmax weights, both of them trained."""

import pytest
import torch

from espnet_taste.layers.fusion import (
    AdditionFusion,
    GatedFusion,
    WeightedFusion,
    build_fusion,
)


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


def test_gates_start_as_the_released_weights_do_and_see_both_streams():
    taste, text = torch.randn(2, 5, 4)
    fusion = GatedFusion(4)
    close = WeightedFusion("zero_audio")(taste, text)

    torch.testing.assert_close(fusion(taste, text), close)

    torch.nn.init.normal_(fusion.gates.weight)
    gates = torch.sigmoid(fusion.gates(torch.cat([taste, text], -1)))
    expected = gates[:, :1] * taste + gates[:, 1:] * text
    torch.testing.assert_close(fusion(taste, text), expected)
    assert not torch.allclose(fusion(taste, text), close)


def test_addition_starts_with_the_text_alone_and_can_leave_it():
    taste, text = torch.randn(2, 5, 4)
    fusion = AdditionFusion()

    assert torch.equal(fusion(taste, text), text)

    fusion(taste, text).square().sum().backward()
    assert float(fusion.scale.grad) != 0
    with torch.no_grad():
        fusion.scale.fill_(0.5)
    torch.testing.assert_close(fusion(taste, text), text + 0.5 * taste)


def test_fusions_have_names():
    kinds = {"weighted_sum": WeightedFusion, "gated": GatedFusion}
    kinds["addition"] = AdditionFusion
    for name, kind in kinds.items():
        assert isinstance(build_fusion(name, 4), kind)
    with pytest.raises(ValueError, match="'addition', got 'sum'"):
        build_fusion("sum", 4)
    for name in kinds:
        with pytest.raises(ValueError, match="streams of one shape"):
            build_fusion(name, 3)(torch.zeros(2, 3), torch.zeros(1, 3))
