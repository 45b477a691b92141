"""Dynamic time warping against the textbook recursion."""

import numpy as np

from espnet_taste.align.dtw import start_frames, warp


def cheapest(cost):
    """Cost of the best path, cell by cell."""
    total = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i in range(cost.shape[0]):
        for j in range(cost.shape[1]):
            total[i + 1, j + 1] = cost[i, j] + min(
                total[i, j], total[i, j + 1], total[i + 1, j]
            )
    return total[-1, -1]


def test_the_path_is_monotone_complete_and_cheapest():
    draw = np.random.default_rng(0)
    for _ in range(60):
        cost = draw.normal(size=(draw.integers(1, 9), draw.integers(1, 14)))
        path = warp(cost)

        assert path[0].tolist() == [0, 0]
        assert path[-1].tolist() == [cost.shape[0] - 1, cost.shape[1] - 1]
        steps = {tuple(step) for step in np.diff(path, axis=0).tolist()}
        assert steps <= {(0, 1), (1, 0), (1, 1)}
        np.testing.assert_allclose(cost[path[:, 0], path[:, 1]].sum(), cheapest(cost))


def test_a_clear_picture_gives_its_starts():
    cost = np.ones((3, 10))
    cost[0, :4] = cost[1, 4:6] = cost[2, 6:] = -1

    assert start_frames(warp(cost)).tolist() == [0, 4, 6]


def test_more_tokens_than_frames_share_frames():
    starts = start_frames(warp(np.zeros((5, 2))))

    assert len(starts) == 5 and (np.diff(starts) >= 0).all() and starts[-1] <= 1


def test_a_long_utterance_is_quick():
    path = warp(np.random.default_rng(0).normal(size=(200, 1500)))

    assert len(path) >= 1500
