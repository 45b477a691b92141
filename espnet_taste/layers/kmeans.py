"""k-means on the device of the data: Lloyd iterations and two ways to start.

Serves the codebooks of the quantizer and the speech units. The Lloyd step is
that of the released quantizer: an empty cluster keeps its mean.

Symbols: N vectors, d width, K means.
"""

import torch
from torch import Tensor

from espnet_taste.layers.precision import in_float64

# Scores of one block are (block, K) floats: 256 MB at K = 4096.
BLOCK_ROWS = 16384


def nearest_means(vectors: Tensor, means: Tensor) -> Tensor:
    """Return the nearest mean of every vector.

    Args:
        vectors: (..., d), float.
        means: (K, d), float.

    Returns:
        Indices, (...), int64; the first of equally near ones.
    """
    # fp32 keeps near ties apart, whatever the surroundings compute in.
    with torch.autocast(vectors.device.type, enabled=False):
        means = means.float()
        # |x|^2 does not change the argmin, so one product per block is enough.
        offsets = -0.5 * means.square().sum(-1)
        blocks = vectors.float().reshape(-1, vectors.size(-1)).split(BLOCK_ROWS)
        found = [torch.addmm(offsets, block, means.T).argmax(-1) for block in blocks]
        return torch.cat(found).reshape(vectors.shape[:-1])


def cluster_sums(vectors: Tensor, index: Tensor, num_means: int) -> tuple[Tensor, ...]:
    """Count and add the vectors of every cluster.

    Args:
        vectors: (N, d), float.
        index: Cluster of every vector, (N,), int64.
        num_means: K.

    Returns:
        Counts (K,) and sums (K, d), both float.
    """
    counts = vectors.new_zeros(num_means)
    counts.index_add_(0, index, vectors.new_ones(len(vectors)))
    sums = vectors.new_zeros(num_means, vectors.size(1)).index_add_(0, index, vectors)
    return counts, sums


@torch.no_grad()
def lloyd(
    vectors: Tensor, start_means: Tensor, num_iterations: int
) -> tuple[Tensor, Tensor]:
    """Move means to the centres of their clusters, again and again.

    Args:
        vectors: (N, d), float32.
        start_means: (K, d), float32.
        num_iterations: Number of assignments, at least 1.

    Returns:
        Means (K, d), and the counts (K,), float, of the last assignment, that is
        from before the last move, as the released quantizer keeps them.

    Raises:
        ValueError: If there is no vector or no iteration.
    """
    if len(vectors) == 0 or num_iterations < 1:
        raise ValueError(
            f"k-means needs vectors and iterations, got {len(vectors)} vectors and "
            f"{num_iterations} iterations"
        )
    means = start_means
    for _ in range(num_iterations):
        counts, sums = cluster_sums(vectors, nearest_means(vectors, means), len(means))
        moved = sums / counts.clamp(min=1)[:, None]
        means = torch.where(counts[:, None] > 0, moved, means)
    return means, counts


@torch.no_grad()
def random_start(vectors: Tensor, num_means: int, generator: torch.Generator) -> Tensor:
    """Draw start means from the vectors, different ones while there are enough.

    Args:
        vectors: (N, d), float.
        num_means: K.
        generator: CPU generator.

    Returns:
        (K, d).
    """
    if len(vectors) >= num_means:
        index = torch.randperm(len(vectors), generator=generator)[:num_means]
    else:
        index = torch.randint(len(vectors), (num_means,), generator=generator)
    return vectors[index.to(vectors.device)]


@torch.no_grad()
def spread_start(vectors: Tensor, num_means: int, generator: torch.Generator) -> Tensor:
    """Draw start means far from each other (k-means++).

    Args:
        vectors: (N, d), float, at least one.
        num_means: K; one pass over the vectors each, so hand in a sample.
        generator: CPU generator.

    Returns:
        (K, d).

    Source: Arthur and Vassilvitskii, "k-means++", SODA 2007.
    """
    draws = torch.rand(num_means, dtype=torch.float64, generator=generator)
    weights = in_float64(torch.ones(len(vectors), device=vectors.device))
    draws = draws.to(weights.device)
    distance = torch.full_like(weights, float("inf"))
    means = []
    for draw in draws:
        # Inverse of the cumulative weights: multinomial() stops at 2**24 vectors.
        # Where all weights are 0, this is the last vector.
        cumulative = weights.cumsum(0)
        index = torch.searchsorted(cumulative, draw * cumulative[-1], right=True)
        mean = vectors[index.clamp(max=len(vectors) - 1)]
        means.append(mean)
        to_mean = in_float64((vectors - mean).square().sum(-1))
        distance = weights = torch.minimum(distance, to_mean)
    return torch.stack(means)
