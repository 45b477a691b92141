"""The quantizer's rules that the golden fixtures do not pin."""

import copy

import pytest
import torch

from espnet_taste.layers import residual_vq
from espnet_taste.layers.ema_codebook import EmaCodebook
from espnet_taste.layers.residual_vq import ResidualVQ, masked_spread
from espnet_taste.types import IGNORE

DIM, WIDTH, SIZE, NUM = 10, 4, 8, 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def build(**options):
    """Return a quantizer that was started from random features."""
    torch.manual_seed(0)
    rvq = ResidualVQ(DIM, WIDTH, SIZE, NUM, **options)
    rvq.initialise(
        torch.randn(60, DIM, generator=seeded()), generator=seeded(), num_iterations=3
    )
    return rvq


@pytest.fixture
def batch():
    features = torch.randn(2, 6, DIM, generator=seeded(7))
    return features, torch.arange(6) < torch.tensor([[6], [4]])


def buffers(rvq):
    return {k: v.clone() for k, v in rvq.named_buffers() if k != "num_steps"}


@pytest.mark.parametrize("training", [True, False])
def test_a_forward_pass_never_initialises(batch, training):
    """Reference defect C17: its codebooks start from the first batch, even in eval."""
    rvq = ResidualVQ(DIM, WIDTH, SIZE, NUM).train(training)
    with pytest.raises(RuntimeError, match=r"0 of 3 codebooks.*call initialise\(\)"):
        rvq(*batch)
    with pytest.raises(RuntimeError, match="0 of 3"):
        rvq.quantize_latent(torch.zeros(1, WIDTH))


def test_initialised_codebooks_survive_the_checkpoint(batch):
    rvq = build().eval()
    other = ResidualVQ(DIM, WIDTH, SIZE, NUM).eval()

    other.load_state_dict(rvq.state_dict())

    assert other(*batch).quantized.equal(rvq(*batch).quantized)


def test_features_that_are_not_finite_are_refused():
    features = torch.randn(20, DIM)
    features[3, 2] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        ResidualVQ(DIM, WIDTH, SIZE, NUM).initialise(features, generator=seeded())


def test_pca_start_keeps_what_varies_most():
    main = torch.randn(WIDTH, DIM, generator=seeded(1))
    features = torch.randn(80, WIDTH, generator=seeded(2)) @ main + 3.0
    rvq = ResidualVQ(DIM, WIDTH, SIZE, NUM)

    rvq.initialise(features, generator=seeded(), num_iterations=2, pca=True)

    back = rvq.project_out(rvq.project_in(features))
    torch.testing.assert_close(back, features, atol=1e-4, rtol=0.0)
    spread = rvq.project_in(features).square().mean().item()
    assert spread == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(ValueError, match="pca to 4 dimensions needs more"):
        rvq.initialise(features[:4], generator=seeded(), pca=True)


@pytest.mark.parametrize("num_active", [1, 2, 3])
@pytest.mark.parametrize(("mode", "scale"), [("summed", None), ("single", 1)])
def test_straight_through_gradient(batch, num_active, mode, scale):
    """Reference defect C19 is the default: one gradient per active codebook."""
    rvq = build(straight_through=mode).train()
    features, mask = batch
    features.requires_grad_()
    cotangent = torch.randn(features.shape, generator=seeded(5))

    out = rvq(features, mask, num_active)
    (out.quantized * cotangent).sum().backward()

    once = cotangent @ rvq.project_out.weight @ rvq.project_in.weight
    expected = (scale or num_active) * once.masked_fill(~mask[..., None], 0.0)
    torch.testing.assert_close(features.grad, expected)


def test_both_gradient_modes_compute_the_same_values(batch):
    summed = build().train()(*batch)
    single = build(straight_through="single").train()(*batch)

    torch.testing.assert_close(single.quantized, summed.quantized)
    assert single.codes.equal(summed.codes)


def test_commitment_pulls_every_codebook_towards_its_entries(batch):
    """audiocraft once shipped a commitment loss that reached the first one only."""
    rvq = build().train()
    features, mask = batch
    features.requires_grad_()

    rvq(features, mask).commitment[-1].backward()

    assert features.grad[mask].abs().sum() > 0
    assert features.grad[~mask].count_nonzero() == 0


@pytest.mark.parametrize("pad", [0.0, 1e4, float("nan")])
def test_padding_reaches_neither_codes_nor_buffers_nor_gradients(batch, pad):
    features, mask = batch
    results = []
    for value in (0.0, pad):
        rvq = build(dead_code_threshold=0.5).train()
        padded = features.masked_fill(~mask[..., None], value)
        out = rvq(padded, mask)
        (out.quantized.square().sum() + out.commitment.sum()).backward()
        weight = rvq.project_in.weight.grad
        results.append([out.quantized, out.codes, out.spread, weight])
        results[-1] += list(buffers(rvq).values())
    for plain, other in zip(*results):
        assert plain.equal(other)
    assert (results[0][1][~mask] == IGNORE).all()


def test_a_batch_of_padding_only_stays_finite(batch):
    rvq = build().train()
    out = rvq(batch[0], torch.zeros_like(batch[1]))
    assert out.commitment.equal(torch.zeros(NUM))
    assert all(torch.isfinite(value).all() for value in buffers(rvq).values())


def test_only_training_moves_codebooks_and_the_switch_stops_them(batch):
    rvq = build()
    before = buffers(rvq)

    rvq.eval()(*batch)
    rvq.update_codebooks = False
    rvq.train()(*batch)
    assert all(value.equal(before[name]) for name, value in buffers(rvq).items())

    rvq.update_codebooks = True
    rvq(*batch)
    assert not rvq.codebooks[2].embed.equal(before["codebooks.2.embed"])


def test_inactive_codebooks_do_not_move(batch):
    rvq = build().train()
    before = buffers(rvq)

    out = rvq(*batch, 2)

    assert (out.codes[..., 2] == IGNORE).all()
    assert rvq.codebooks[2].embed.equal(before["codebooks.2.embed"])
    assert not rvq.codebooks[1].embed.equal(before["codebooks.1.embed"])


@pytest.mark.parametrize("num_active", [0, 4])
def test_an_impossible_number_of_codebooks_is_refused(batch, num_active):
    with pytest.raises(ValueError, match=f"must be in 1..3, got {num_active}"):
        build()(*batch, num_active)


def drawn(rvq, batch, steps):
    """Return the number of active codebooks of some training steps."""
    found = []
    for _ in range(steps):
        codes = rvq.train()(*batch).codes[0, 0]
        found.append(int((codes != IGNORE).sum()))
    return found


def test_dropout_draws_every_number_of_codebooks_alike(batch):
    numbers = drawn(build(quantizer_dropout=True, decay=1.0), batch, 600)

    shares = torch.tensor(numbers).bincount(minlength=NUM + 1) / len(numbers)
    assert shares[0] == 0
    torch.testing.assert_close(
        shares[1:], torch.full((NUM,), 1 / NUM), atol=0.06, rtol=0
    )


def test_dropout_is_the_same_on_every_rank_and_after_resuming(batch):
    """Ranks have other global seeds and other data."""
    one = build(quantizer_dropout=True)
    other = copy.deepcopy(one)
    torch.manual_seed(1)
    first = drawn(one, batch, 20)
    torch.manual_seed(2)
    assert drawn(other, (batch[0] + 1, batch[1]), 12) == first[:12]

    resumed = build(quantizer_dropout=True)
    resumed.load_state_dict(other.state_dict())
    assert drawn(resumed, batch, 8) == first[12:]
    assert drawn(build(quantizer_dropout=True, seed=1), batch, 20) != first


def test_evaluation_uses_all_codebooks(batch):
    rvq = build(quantizer_dropout=True)
    for _ in range(5):
        assert (rvq.eval()(*batch).codes[batch[1]] != IGNORE).all()
        rvq.train()(*batch)


def test_dead_codes_stay_dead_by_default_and_revive_by_option(batch):
    """Reference defect C18 is the default."""
    far = torch.full((WIDTH,), 1e3)
    for threshold, revived in ((0.0, False), (0.9, True)):
        rvq = build(dead_code_threshold=threshold).train()
        codebook = rvq.codebooks[0]
        codebook.embed[0] = far
        codebook.embed_sum[0] = 0.01 * far
        codebook.count[0] = 0.01

        rvq(*batch)

        assert bool(codebook.embed[0].norm() < 100) == revived
        if revived:
            valid = rvq.project_in(batch[0])[batch[1]]
            near = torch.cdist(codebook.embed[:1], valid).min()
            assert near < 1e-5
            assert codebook.count[0] == pytest.approx(threshold)


def test_revived_codes_are_valid_vectors_of_the_batch(batch):
    features = batch[0]
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, 1] = mask[1, 2] = True
    rvq = build(dead_code_threshold=1e3).train()

    choices = []
    for _ in range(2):
        rvq(features, mask)
        valid = rvq.project_in(features)[mask]
        nearest = torch.cdist(rvq.codebooks[0].embed, valid).min(1)
        assert nearest.values.max() < 1e-4
        choices.append(nearest.indices.tolist())
    assert set(choices[0]) == {0, 1}
    assert choices[0] != choices[1]  # every step draws anew


def test_smoothing_follows_its_formula():
    codebook = EmaCodebook(3, 2, decay=0.5, eps=0.25)
    codebook.embed_sum.copy_(torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))

    codebook.update(torch.tensor([3.0, 1.0, 0.0]), torch.ones(3, 2))

    counts = torch.tensor([2.0, 1.0, 0.5])
    smoothed = (counts + 0.25) / (3.5 + 3 * 0.25) * 3.5
    sums = torch.tensor([[1.5, 0.5], [0.5, 1.5], [1.0, 1.0]])
    assert codebook.count.equal(counts)
    torch.testing.assert_close(codebook.embed, sums / smoothed[:, None])


def test_statistics_are_summed_over_ranks(batch, monkeypatch):
    """Two ranks with half a batch each move the codebooks like one with all.

    Reference defect C20: statistics stay apart if the model is built first.
    """
    features, mask = batch
    whole = build().train()
    whole(features, mask)
    halves = [(features[i : i + 1], mask[i : i + 1]) for i in range(2)]
    sent = []

    monkeypatch.setattr(residual_vq.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(
        residual_vq.distributed, "all_reduce", lambda x: sent.append(x.clone())
    )
    build().train()(*halves[1])
    monkeypatch.setattr(
        residual_vq.distributed, "all_reduce", lambda x: x.add_(sent[0])
    )
    rank = build().train()  # built before the group existed
    rank(*halves[0])

    assert len(sent) == 1  # one message for all codebooks
    for name, value in buffers(whole).items():
        torch.testing.assert_close(dict(rank.named_buffers())[name], value)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_move_no_entry(batch, value):
    """ESPnet skips the step of such a batch, but the codebooks are not its own."""
    features, mask = batch
    without = mask.clone()
    without[0, 2] = False
    expected, rvq = build().train(), build().train()
    expected(features, without)
    broken = features.clone()
    broken[0, 2, 1] = value

    rvq(broken, mask)

    for name, buffer in buffers(expected).items():
        torch.testing.assert_close(dict(rvq.named_buffers())[name], buffer)


@pytest.mark.parametrize("broken", ["padding", "not finite"])
def test_a_batch_without_a_vector_that_counts_revives_nothing(batch, broken):
    """One NaN in the states of a recording reaches all of its crops."""
    rvq = build(dead_code_threshold=1e3).train()
    before = [codebook.embed.clone() for codebook in rvq.codebooks]
    features, mask = batch

    if broken == "padding":
        rvq(features, torch.zeros_like(mask))
    else:
        rvq(torch.full_like(features, torch.nan), mask)

    for codebook, entries in zip(rvq.codebooks, before, strict=True):
        torch.testing.assert_close(codebook.embed, entries, atol=1e-3, rtol=1e-3)


def test_autocast_changes_no_code(batch):
    rvq = build().eval()
    plain = rvq(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        other = rvq(*batch)
        embeds = rvq.decode(plain.codes)
    assert other.codes.equal(plain.codes)
    assert other.quantized.equal(plain.quantized)
    assert embeds.equal(rvq.decode(plain.codes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_in_half_precision_are_quantized_in_float32(batch, dtype):
    rvq = build().train()
    features, mask = batch[0].to(dtype), batch[1]
    with torch.autocast("cpu", torch.bfloat16):
        half = rvq(features.requires_grad_(), mask)
    half.quantized.sum().backward()

    full = build().train()(features.detach().float(), mask)
    assert half.codes.equal(full.codes)
    assert half.quantized.equal(full.quantized)
    assert features.grad.dtype == dtype and features.grad[mask].any()


def test_codes_decode_to_what_was_quantized(batch):
    rvq = build().eval()
    out = rvq(*batch)
    torch.testing.assert_close(rvq.decode(out.codes), out.quantized)


def test_spread_is_the_deviation_of_valid_vectors():
    vectors = torch.tensor([[[1.0], [3.0], [float("nan")]]])
    mask = torch.tensor([[True, True, False]])
    assert masked_spread(vectors, mask).item() == pytest.approx(1.0)


def test_an_unknown_gradient_mode_is_refused():
    with pytest.raises(ValueError, match="'summed' or 'single', got 'both'"):
        ResidualVQ(DIM, WIDTH, SIZE, NUM, straight_through="both")
