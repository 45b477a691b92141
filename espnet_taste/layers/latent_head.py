"""Continuous head of the spoken LM: a Gaussian over the summed code of a word.

The spoken LM does not predict code indices but the d-wide vector their codebook
entries add up to; the codes are found by quantizing it again.

Symbols: H LLM width, d codebook width.

Source: TASTE (arXiv:2504.07053), latent head of the spoken LM; the idea is MELLE's
(arXiv:2407.08551).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

LatentEval = Literal["mu_sigma", "mu"]


@dataclass(frozen=True)
class Latent:
    """Predicted distribution and the point taken from it."""

    mu: Tensor  # (..., d)
    logvar: Tensor  # (d,), the same for every position
    value: Tensor  # (..., d)


class LatentHead(nn.Module):
    """Predict the summed code as a Gaussian with one learned variance a dimension.

    Args:
        hidden_dim: LLM width H.
        latent_dim: Codebook width d.
        eval_latent: Point taken in eval mode. ``"mu_sigma"``, one standard
            deviation above the mean in every dimension, is what the released model
            does (its training gradient has the same offset, so weights trained this
            way may rely on it); ``"mu"`` is the mean.

    Raises:
        ValueError: If ``eval_latent`` is neither.
    """

    def __init__(
        self, hidden_dim: int, latent_dim: int, eval_latent: LatentEval = "mu_sigma"
    ):
        super().__init__()
        if eval_latent not in ("mu_sigma", "mu"):
            raise ValueError(
                f"eval_latent must be 'mu_sigma' or 'mu', got '{eval_latent}'"
            )
        self.eval_latent = eval_latent
        self.mu = nn.Linear(hidden_dim, latent_dim)
        self.logvar = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> Latent:
        """Predict the latent of every position.

        In train mode the value is ``mu + sigma * noise`` but its gradient is that
        of ``mu + sigma``: released behaviour, held by the golden test.

        Args:
            hidden: LLM output, (..., H), float32.
            noise: Standard normal noise of the train mode, (..., d); None draws it
                from torch's default generator. Unused in eval mode.

        Returns:
            The latent.
        """
        mu = self.mu(hidden)
        sigma = (0.5 * self.logvar).exp()
        if not self.training:
            value = mu + sigma if self.eval_latent == "mu_sigma" else mu
            return Latent(mu, self.logvar, value)
        noise = torch.randn_like(mu) if noise is None else noise
        above = mu + sigma
        value = above + (sigma * (noise - 1)).detach()
        return Latent(mu, self.logvar, value)
