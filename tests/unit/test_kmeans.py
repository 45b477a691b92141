"""k-means: assignment, the two starts, and convergence on clear clusters."""

import pytest
import torch

from espnet_taste.layers import kmeans
from espnet_taste.layers.kmeans import (
    lloyd,
    nearest_means,
    random_start,
    spread_start,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def clusters(num_clusters=5, size=40):
    """Return vectors around distant centres, shuffled, and the centres."""
    centres = 10.0 * torch.eye(num_clusters, 6)
    noise = 0.1 * torch.randn(num_clusters * size, 6, generator=seeded(1))
    vectors = centres.repeat(size, 1) + noise
    return vectors, centres


def same_set(means, centres):
    """Tell whether every centre has a mean close to it."""
    return bool((torch.cdist(centres, means).min(1).values < 0.5).all())


def test_nearest_matches_all_distances(monkeypatch):
    monkeypatch.setattr(kmeans, "BLOCK_ROWS", 7)  # several blocks
    vectors = torch.randn(4, 5, 3, generator=seeded())
    means = torch.randn(8, 3, generator=seeded(1))

    found = nearest_means(vectors, means)

    expected = torch.cdist(vectors.flatten(0, 1), means).argmin(1).view(4, 5)
    assert found.equal(expected)


def test_nearest_ignores_autocast():
    means = torch.tensor([[100.0], [100.1]])
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest_means(torch.tensor([[100.06]]), means)
    assert found.item() == 1


def test_random_start_takes_different_vectors_while_there_are_enough():
    vectors = torch.arange(6.0)[:, None]

    means = random_start(vectors, 6, seeded())

    assert sorted(means.flatten().tolist()) == list(range(6))
    assert random_start(vectors, 9, seeded()).shape == (9, 1)


def test_spread_start_finds_every_distant_cluster():
    vectors, centres = clusters()
    assert same_set(spread_start(vectors, len(centres), seeded()), centres)


def test_spread_start_survives_fewer_different_vectors_than_means():
    assert spread_start(torch.ones(3, 2), 5, seeded()).equal(torch.ones(5, 2))


def test_lloyd_ends_at_the_centres():
    vectors, centres = clusters()

    means, counts = lloyd(vectors, spread_start(vectors, 5, seeded()), 5)

    assert same_set(means, centres)
    assert counts.sum() == len(vectors)


def test_no_vectors_are_refused():
    with pytest.raises(ValueError, match="got 0 vectors and 3 iterations"):
        lloyd(torch.zeros(0, 2), torch.zeros(1, 2), 3)
