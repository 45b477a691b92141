"""Unit generation: how one unit is chosen, when rows stop, what is refused."""

import pytest
import torch

from espnet_taste.decoder import generation
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.generation import choose_units, unit_bounds
from espnet_taste.decoder.unit_lm import UnitLM
from espnet_taste.types import IGNORE

EARLY, LATE = torch.tensor([True]), torch.tensor([False])
END = 3


@pytest.fixture
def unit_lm():
    torch.manual_seed(0)
    sizes = {"text_layers": 1, "taste_layers": 1, "lm_layers": 1, "feedforward": 8}
    model = UnitLM(END, 5, 4, speaker_dim=2, width=8, heads=2, text_dim=4, **sizes)
    return model.eval()


def generate(model, sampling, seed=0, rows=2):
    return model.generate(
        torch.zeros(rows, 2, dtype=torch.long),
        torch.full((rows,), 2),
        None,
        torch.ones(rows, 2),
        sampling=sampling,
        source=torch.Generator().manual_seed(seed),
    )


def draws(logits, is_early, sampling, count=20000):
    logits = torch.tensor([logits]).expand(count, -1)
    generator = torch.Generator().manual_seed(0)
    drawn = choose_units(logits, is_early.expand(count), sampling, generator)
    return (drawn.bincount(minlength=logits.size(1)) / count).tolist()


def test_greedy_takes_the_best_that_is_allowed():
    logits = torch.tensor([[1.0, 2.0, 0.0, 9.0]])

    assert choose_units(logits, EARLY, UnitSampling(top_k=1)).item() == 1
    assert choose_units(logits, LATE, UnitSampling(top_k=1)).item() == END


def test_an_early_end_keeps_its_place_among_the_best():
    """The released sampler draws again, so the k-th best unit stays out."""
    shares = draws([1.0, 2.0, 0.0, 9.0], EARLY, UnitSampling(top_k=2))

    assert shares == [0.0, 1.0, 0.0, 0.0]


def test_draws_follow_softmax_over_the_best():
    shares = draws([0.0, 1.0, -9.0, 1.0], LATE, UnitSampling(top_k=3))

    expected = torch.tensor([0.0, 1.0, -torch.inf, 1.0]).softmax(0)
    assert shares == pytest.approx(expected.tolist(), abs=0.015)
    assert shares[2] == 0.0


def test_temperature_flattens():
    shares = draws([0.0, 0.0, 0.0, 4.0], LATE, UnitSampling(temperature=4.0))

    expected = torch.tensor([0.0, 0.0, 0.0, 1.0]).softmax(0)
    assert shares == pytest.approx(expected.tolist(), abs=0.015)


def test_bounds_in_seconds_follow_the_unit_rate():
    sampling = UnitSampling(
        bounds="tokens", unit_rate_hz=25, min_token_s=0.1, max_token_s=0.5, extra_s=1
    )

    least, most = unit_bounds(torch.tensor([0, 3, 10]), sampling)

    assert least.tolist() == [0, 7, 25]
    assert most.tolist() == [25, 63, 150]


def test_a_batch_stops_at_the_next_check_after_its_last_end(unit_lm, monkeypatch):
    unit_lm.output.bias.data[END] = 50.0  # ends as early as it may
    steps = []
    step = unit_lm.unit_encoder.step
    monkeypatch.setattr(
        unit_lm.unit_encoder, "step", lambda *args: steps.append(0) or step(*args)
    )

    generated = generate(unit_lm, UnitSampling(check_every=16))

    assert generated.lengths.tolist() == [10, 10]  # 2 * (3 + 2)
    assert len(steps) == 15
    assert generated.units.shape == (2, 10)


def test_the_upper_bound_cuts_off(unit_lm):
    unit_lm.output.bias.data[END] = -50.0

    generated = generate(unit_lm, UnitSampling())

    assert generated.lengths.tolist() == [100, 100]  # 20 * (3 + 2)
    assert generated.has_ended.tolist() == [False, False]
    assert (generated.units != IGNORE).all()


def test_a_row_that_was_cut_off_does_not_end_later(unit_lm, monkeypatch):
    most, ends_at = torch.tensor([80, 100]), 90  # 20 * (3 + 1) and 20 * (3 + 2)
    steps = iter(range(1000))

    def choose_by_step(logits, *_):
        return torch.full((len(logits),), END if next(steps) >= ends_at else 0)

    monkeypatch.setattr(generation, "choose_units", choose_by_step)
    generated = unit_lm.generate(
        torch.zeros(2, 2, dtype=torch.long),
        torch.tensor([1, 2]),
        None,
        torch.ones(2, 2),
    )

    assert generated.lengths.tolist() == [most[0], ends_at]
    assert generated.has_ended.tolist() == [False, True]


def test_draws_repeat_with_the_seed(unit_lm):
    first, again, other = (generate(unit_lm, UnitSampling(), s) for s in (1, 1, 2))

    assert first.units.equal(again.units)
    assert first.units.shape != other.units.shape or not first.units.equal(other.units)


def test_generated_units_can_be_trained_on(unit_lm):
    """Units made in inference mode could not be saved for a backward pass."""
    units = generate(unit_lm, UnitSampling(top_k=1), rows=1).units

    unit_lm.unit_embedding(units).sum().backward()


def test_refuses_to_generate_with_dropout_on(unit_lm):
    with pytest.raises(ValueError, match="train mode"):
        generate(unit_lm.train(), UnitSampling())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"bounds": "words"}, "bounds must be 'prompt' or 'tokens', got 'words'"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"unit_rate_hz": -1.0}, "unit_rate_hz must be > 0"),
        ({"min_token_s": 0.7}, "min_token_s <= max_token_s"),
        ({"extra_s": -1.0}, "extra_s >= 0"),
    ],
)
def test_refuses_settings_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        UnitSampling(**setting)
