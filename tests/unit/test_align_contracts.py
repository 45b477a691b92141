"""Word times that fit: ordered, inside the audio, none too short."""

import numpy as np
import pytest

from espnet_taste.align.contracts import (
    MIN_WORD_S,
    AlignmentError,
    fit_times,
    uniform_times,
)


def check(times, duration_s):
    slack = 1e-5
    assert times.dtype == np.float32
    assert times[0, 0] >= 0 and times[-1, 1] <= duration_s + slack
    assert (times[:, 1] - times[:, 0] >= MIN_WORD_S - slack).all()
    assert (times[1:, 0] >= times[:-1, 1] - slack).all()


def test_times_that_fit_are_not_touched():
    times = [[0.0, 0.3], [0.5, 0.52], [0.52, 1.0]]

    found = fit_times(np.array(times), 1.0)

    np.testing.assert_allclose(found.times, times, atol=1e-7)
    assert found.num_moved == 0


@pytest.mark.parametrize(
    ("times", "expected", "moved"),
    [
        ([[0.1, 0.1]], [[0.1, 0.12]], 1),
        ([[-0.1, 0.2]], [[0.0, 0.2]], 1),
        ([[0.5, 1.2]], [[0.5, 1.0]], 1),
        ([[1.3, 1.4]], [[0.98, 1.0]], 1),
        ([[0.1, 0.5], [0.4, 0.7]], [[0.1, 0.5], [0.5, 0.7]], 1),
        ([[0.1, 0.99], [0.99, 0.99]], [[0.1, 0.98], [0.98, 1.0]], 2),
        # A wrong end does not move the words that it covers.
        ([[0, 0.9], [0.3, 0.5], [0.5, 0.8]], [[0, 0.3], [0.3, 0.5], [0.5, 0.8]], 1),
        ([[0.1, 0.5], [0.4, 0.4]], [[0.1, 0.4], [0.4, 0.42]], 2),
        ([[1, 1], [1, 1], [1, 1]], [[0.94, 0.96], [0.96, 0.98], [0.98, 1]], 3),
    ],
)
def test_times_are_moved_as_little_as_needed(times, expected, moved):
    found = fit_times(np.array(times, dtype=float), 1.0)

    np.testing.assert_allclose(found.times, expected, atol=1e-6)
    assert found.num_moved == moved


def test_random_times_fit_whatever_they_were():
    draw = np.random.default_rng(0)
    for _ in range(300):
        words = draw.integers(1, 40)
        duration = words * MIN_WORD_S * draw.uniform(1, 5)
        starts = np.sort(draw.uniform(-0.5, duration + 0.5, words))
        times = np.stack([starts, starts + draw.uniform(-0.2, 0.5, words)], axis=1)
        check(fit_times(times, duration).times, duration)


@pytest.mark.parametrize(
    ("times", "duration", "reason"),
    [
        ([[0, 1], [1, np.nan]], 2.0, "not_aligned"),
        ([[0.5, 0.6], [0.4, 0.7]], 2.0, "not_aligned"),
        ([[0, 0.02], [0.02, 0.03]], 0.039, "too_many_words"),
    ],
)
def test_what_no_moving_can_mend(times, duration, reason):
    with pytest.raises(AlignmentError) as caught:
        fit_times(np.array(times), duration)
    assert caught.value.reason == reason


def test_shapes_are_checked():
    for shape in ((0, 2), (2,), (2, 3)):
        with pytest.raises(ValueError, match="expected times"):
            fit_times(np.zeros(shape), 1.0)


def test_an_even_split():
    found = uniform_times(4, 2.0)

    np.testing.assert_allclose(found.times[:, 0], [0, 0.5, 1, 1.5])
    check(found.times, 2.0)
    with pytest.raises(AlignmentError, match="too_many_words"):
        uniform_times(101, 2.0)
