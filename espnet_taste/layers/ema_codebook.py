"""One codebook of the quantizer: entries, their running sums and counts.

Symbols: d codebook width, K entries, N vectors.

Source: van den Oord et al., arXiv:1711.00937, appendix A.1.
"""

import torch
from torch import Tensor, nn

from espnet_taste.layers.kmeans import lloyd


class EmaCodebook(nn.Module):
    """One codebook, moved by exponential averages instead of by gradients.

    Args:
        size: Number of entries K.
        dim: Width d.
        decay: Share of the old averages that one update keeps.
        eps: Smoothing of the counts.
    """

    def __init__(self, size: int, dim: int, decay: float, eps: float = 1e-5):
        super().__init__()
        self.decay = decay
        self.eps = eps
        self.register_buffer("embed", torch.zeros(size, dim))
        self.register_buffer("embed_sum", torch.zeros(size, dim))
        self.register_buffer("count", torch.ones(size))
        # A float, so that averaging checkpoints leaves a 1 a 1.
        self.register_buffer("initialised", torch.zeros(()))

    @torch.no_grad()
    def initialise(
        self, vectors: Tensor, start_means: Tensor, num_iterations: int
    ) -> None:
        """Set the entries to the k-means centres of training data.

        Args:
            vectors: (N, d), float32.
            start_means: (K, d), float32.
            num_iterations: Lloyd iterations.
        """
        means, counts = lloyd(vectors, start_means, num_iterations)
        self.embed.copy_(means)
        self.count.copy_(counts)
        self.embed_sum.copy_(means * counts[:, None])
        self.initialised.fill_(1.0)

    @torch.no_grad()
    def update(self, counts: Tensor, sums: Tensor) -> None:
        """Move the entries towards the vectors assigned to them.

        Args:
            counts: Vectors per entry, (K,), float.
            sums: Their sums, (K, d), float.
        """
        self.count.lerp_(counts, 1 - self.decay)
        self.embed_sum.lerp_(sums, 1 - self.decay)

        # Laplace smoothing keeps entries nobody chose away from a division by 0.
        total = self.count.sum()
        smooth = (self.count + self.eps) / (total + self.count.numel() * self.eps)
        self.embed.copy_(self.embed_sum / (smooth * total)[:, None])

    @torch.no_grad()
    def revive(self, candidates: Tensor, threshold: float) -> None:
        """Replace entries that are hardly chosen any more.

        Args:
            candidates: A vector to put in the place of each entry, (K, d). One that
                is not finite replaces nothing: no later step could mend the entry.
            threshold: Entries whose averaged count is below are replaced, and
                start again with this count.
        """
        dead = (self.count < threshold) & candidates.isfinite().all(-1)
        self.count.masked_fill_(dead, threshold)
        self.embed.copy_(torch.where(dead[:, None], candidates, self.embed))
        sums = torch.where(dead[:, None], candidates * threshold, self.embed_sum)
        self.embed_sum.copy_(sums)
