"""Dynamic time warping of tokens against frames."""

import numpy as np


def warp(cost: np.ndarray) -> np.ndarray:
    """Find the cheapest monotone path from the first to the last corner.

    A step goes to the next frame, to the next token, or to both. Cells of one
    anti-diagonal depend only on the two before it, so each is one array operation.

    Args:
        cost: Cost of every (token, frame) pair, (N, M), finite, N > 0, M > 0.

    Returns:
        The path's cells in order, (P, 2) int64, from (0, 0) to (N - 1, M - 1).
    """
    num_rows, num_columns = cost.shape
    num_diagonals = num_rows + num_columns - 1
    total = np.full((num_rows + 1, num_columns + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((num_rows, num_columns), dtype=np.int8)
    for diagonal in range(num_diagonals):
        first = max(0, diagonal - num_columns + 1)
        rows = np.arange(first, min(diagonal, num_rows - 1) + 1)
        columns = diagonal - rows
        # The order decides between equal costs: both, token, frame.
        before = np.stack(
            [total[rows, columns], total[rows, columns + 1], total[rows + 1, columns]]
        )
        best = before.argmin(axis=0)
        step[rows, columns] = best
        total[rows + 1, columns + 1] = cost[rows, columns] + before.min(axis=0)
    return _walk_back(step)


def _walk_back(step: np.ndarray) -> np.ndarray:
    """Follow the steps from the last corner to the first."""
    row, column = step.shape[0] - 1, step.shape[1] - 1
    path = [(row, column)]
    while row > 0 or column > 0:
        taken = step[row, column]
        row -= taken != 2
        column -= taken != 1
        path.append((row, column))
    return np.array(path[::-1], dtype=np.int64)


def start_frames(path: np.ndarray) -> np.ndarray:
    """Return the first frame of every token on a path, (P, 2) -> (N,) int64."""
    first = np.concatenate([[True], np.diff(path[:, 0]) > 0])
    return path[first, 1]
