"""Bootstrap intervals against the loop anyone would write."""

import numpy as np
import pytest

from espnet_taste.eval import bootstrap
from espnet_taste.eval.bootstrap import (
    RatioData,
    draw_weights,
    paired_difference,
    ratio_interval,
)


def make_data(number=20, seed=0, shift=0.0):
    generator = np.random.default_rng(seed)
    denominators = generator.integers(5, 20, number).astype(float)
    return RatioData(denominators * (0.3 + shift) + generator.normal(size=number),
                     denominators)  # fmt: skip


def loop_ratio(data, weights):
    """Repeat every utterance as often as drawn and divide the sums."""
    index = np.repeat(np.arange(len(weights)), weights.astype(int))
    return data.numerators[index].sum() / data.denominators[index].sum()


def test_equals_the_loop():
    data = make_data()
    rows = np.concatenate(list(draw_weights(20, seed=3, resamples=300)))
    draws = [loop_ratio(data, row) for row in rows]

    interval = ratio_interval(data, seed=3, resamples=300)

    low, high = np.quantile(draws, [0.025, 0.975])
    assert interval.value == pytest.approx(data.numerators.sum()
                                           / data.denominators.sum())  # fmt: skip
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert interval.num_items == 20


def test_paired_difference_equals_the_loop():
    first, second = make_data(), make_data(seed=1, shift=0.1)
    rows = np.concatenate(list(draw_weights(20, seed=5, resamples=300)))
    draws = [loop_ratio(first, row) - loop_ratio(second, row) for row in rows]

    interval = paired_difference(first, second, seed=5, resamples=300)

    low, high = np.quantile(draws, [0.025, 0.975])
    assert interval.value == pytest.approx(first.ratio - second.ratio)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_every_resample_draws_as_many_as_there_are():
    rows = np.concatenate(list(draw_weights(7, seed=0, resamples=600)))

    assert rows.shape == (600, 7)
    assert (rows.sum(axis=1) == 7).all()
    assert rows.mean(axis=0) == pytest.approx(np.ones(7), abs=0.2)


def test_kept_draws_equal_fresh_ones(monkeypatch):
    kept = np.concatenate(list(draw_weights(9, seed=4, resamples=700)))
    monkeypatch.setattr(bootstrap, "_KEPT_ENTRIES", 0)
    fresh = list(draw_weights(9, seed=4, resamples=700))

    assert len(fresh) == 3
    assert np.array_equal(kept, np.concatenate(fresh))


def test_the_interval_of_a_mean_has_its_textbook_width():
    values = np.random.default_rng(0).normal(size=400)

    interval = ratio_interval(RatioData(values, np.ones(400)), resamples=4000)

    width = 2 * 1.96 * values.std() / 20
    assert interval.high - interval.low == pytest.approx(width, rel=0.08)


def test_pairing_removes_what_both_share():
    noise = np.random.default_rng(0).normal(size=50) * 10
    ones = np.ones(50)
    first, second = RatioData(noise + 1, ones), RatioData(noise, ones)

    paired = paired_difference(first, second)

    assert (paired.low, paired.high) == (pytest.approx(1.0), pytest.approx(1.0))
    assert paired.excludes_zero
    assert paired_difference(second, first).excludes_zero
    alone = ratio_interval(first), ratio_interval(second)
    assert alone[0].low < alone[1].high and alone[1].low < alone[0].high


def test_the_seed_decides():
    data = make_data()

    assert ratio_interval(data, seed=1) == ratio_interval(data, seed=1)
    assert ratio_interval(data, seed=1) != ratio_interval(data, seed=2)


def test_no_interval_where_resamples_have_no_denominator():
    """One matched word in twenty utterances: a third of the draws miss it."""
    denominators = np.zeros(20)
    denominators[0] = 4.0

    interval = ratio_interval(RatioData(denominators / 2, denominators))

    assert interval.value == 0.5
    assert (interval.low, interval.high) == (None, None)
    assert not interval.excludes_zero


@pytest.mark.parametrize(
    ("numerators", "denominators", "message"),
    [
        ([1.0, np.nan], [1.0, 1.0], r"numerators\[1\] is not a finite"),
        ([1.0, 1.0], [np.inf, 1.0], r"denominators\[0\] is not a finite"),
        ([1.0], [1.0, 1.0], r"got \(1,\) and \(2,\)"),
        ([1.0, 1.0], [1.0, -1.0], "negative"),
    ],
)
def test_impossible_counts_are_refused(numerators, denominators, message):
    with pytest.raises(ValueError, match=message):
        RatioData(np.array(numerators), np.array(denominators))


def test_refusals():
    one = RatioData(np.ones(1), np.ones(1))
    empty = RatioData(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="at least 2 utterances, got 1"):
        ratio_interval(one)
    with pytest.raises(ValueError, match="sum to 0"):
        ratio_interval(empty)
    with pytest.raises(ValueError, match="got 3 and 1"):
        paired_difference(empty, one)
