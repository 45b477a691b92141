"""Word spans: they tile the utterance, and units follow their words."""

import numpy as np
import pytest

from espnet_taste.data.spans import random_spans, random_unit_mask, unit_boundaries


def test_pauses_are_divided_at_their_middle():
    times = np.array([[0.1, 0.5], [0.7, 1.0]])

    bounds = unit_boundaries(times, num_units=60, unit_rate_hz=50)

    assert bounds.tolist() == [0, 30, 60]  # (0.5 + 0.7) / 2 s at 50 Hz


def test_boundaries_never_run_backwards_or_past_the_end():
    times = np.array([[0.0, 2.0], [1.0, 1.1], [5.0, 6.0]])

    bounds = unit_boundaries(times, num_units=40, unit_rate_hz=25)

    assert bounds[0] == 0 and bounds[-1] == 40
    assert (np.diff(bounds) >= 0).all()


def test_one_word_owns_all_units():
    assert unit_boundaries(np.array([[0.2, 0.4]]), 9, 50).tolist() == [0, 9]


@pytest.mark.parametrize("shape", [(0, 2), (3,), (3, 3)])
def test_times_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \(words, 2\)"):
        unit_boundaries(np.zeros(shape), 10, 50)


@pytest.mark.parametrize("num_words", [1, 2, 7, 40])
def test_spans_tile_the_words(num_words):
    rng = np.random.default_rng(0)
    for _ in range(20):
        spans = random_spans(num_words, (1, 3, 0), rng)
        covered = [word for start, stop in spans for word in range(start, stop)]
        assert covered == list(range(num_words))


def test_size_zero_takes_all_that_is_left():
    assert random_spans(9, (0,), np.random.default_rng(0)) == [(0, 9)]


def test_the_share_of_hidden_units_differs_between_rows_and_stays_below_the_limit():
    rng = np.random.default_rng(0)
    shares = [random_unit_mask(4000, 0.4, rng).mean() for _ in range(50)]

    assert max(shares) < 0.44 and min(shares) < 0.05
    assert np.std(shares) > 0.05
    assert not random_unit_mask(100, 0.0, rng).any()
