"""The quantizers behind their contract."""

import pytest
import torch

from espnet_taste.tokenizer.quantizer import NoQuantizer, RvqQuantizer


@pytest.fixture
def rvq():
    torch.manual_seed(0)
    quantizer = RvqQuantizer(6, 3, 4, 2, quantizer_dropout=False)
    quantizer.initialise(torch.randn(30, 6), generator=torch.Generator().manual_seed(0))
    return quantizer


def test_sizes_and_codes(rvq):
    mask = torch.tensor([[True, True, False]])

    out = rvq.eval()(torch.randn(1, 3, 6), mask)

    assert (rvq.num_codebooks, rvq.codebook_size, rvq.codebook_dim) == (2, 4, 3)
    assert out.codes.shape == (1, 3, 2)
    torch.testing.assert_close(rvq.decode(out.codes), out.quantized)
    assert rvq.quantize_latent(rvq.sum_codes(out.codes)).shape == (1, 3, 2)


@pytest.mark.parametrize("start", ["random", "pca"])
def test_projections_start_from_features_only_if_told(start):
    """The released ones keep their random start; only codebooks see training data."""
    quantizer = RvqQuantizer(6, 3, 4, 2, start_projections=start)
    before = quantizer.rvq.project_in.weight.clone()
    features = torch.randn(30, 3) @ torch.randn(3, 6)

    quantizer.initialise(features, generator=torch.Generator().manual_seed(0))

    rvq = quantizer.rvq
    back = rvq.project_out(rvq.project_in(features))
    assert rvq.project_in.weight.equal(before) == (start == "random")
    assert torch.allclose(back, features, atol=1e-4) == (start == "pca")
    assert all(book.initialised for book in rvq.codebooks)


def test_another_start_of_the_projections_is_refused():
    with pytest.raises(ValueError, match="start_projections must be 'random' or 'pca'"):
        RvqQuantizer(6, 3, 4, 2, start_projections="PCA")


def test_a_quantizer_may_need_no_start():
    features = torch.randn(4, 6)
    NoQuantizer().initialise(features, generator=torch.Generator())


def test_options_reach_the_residual_quantizer():
    options = {
        "quantizer_dropout": False,
        "dead_code_threshold": 0.25,
        "update_codebooks": False,
        "straight_through": "single",
    }

    quantizer = RvqQuantizer(6, 3, 4, 2, decay=0.5, seed=7, **options)

    for name, value in options.items():
        assert getattr(quantizer.rvq, name) == value, name
    assert [book.decay for book in quantizer.rvq.codebooks] == [0.5, 0.5]
    assert RvqQuantizer(6, 3, 4, 2).rvq.quantizer_dropout  # as released


def test_statistics_count_the_entries_in_use(rvq):
    out = rvq.eval()(torch.randn(1, 3, 6), torch.ones(1, 3, dtype=torch.bool))
    rvq.rvq.codebooks[0].count.copy_(torch.tensor([5.0, 5.0, 0.0, 0.0]))
    rvq.rvq.codebooks[1].count.fill_(2.0)

    values = rvq.statistics(out)

    assert values["code_perplexity_0"].item() == pytest.approx(2.0)
    assert values["code_perplexity_1"].item() == pytest.approx(4.0)
    assert values["latent_spread"].item() > 0


def test_no_quantizer_passes_features_and_gradients():
    features = torch.randn(1, 3, 6, requires_grad=True)
    quantizer = NoQuantizer()

    out = quantizer(features, torch.ones(1, 3, dtype=torch.bool))
    out.quantized.sum().backward()

    assert out.quantized is features
    assert features.grad.eq(1.0).all()
    assert out.codes is None
    assert out.commitment.sum() == 0
    assert set(quantizer.statistics(out)) == {"latent_spread"}


def test_no_quantizer_has_no_codes():
    for method in ("decode", "sum_codes", "quantize_latent"):
        with pytest.raises(ValueError, match="no quantizer, hence no codes"):
            getattr(NoQuantizer(), method)(torch.zeros(1, 2))
