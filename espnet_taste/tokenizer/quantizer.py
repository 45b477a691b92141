"""Quantizers that YAML may name: residual VQ, or none at all.

Symbols: B batch, Ta tokens, D feature width, Q codebooks, K codebook size, d
codebook width.
"""

from typing import Literal

import torch
from torch import Tensor

from espnet_taste.layers.residual_vq import (
    QuantizerOutput,
    ResidualVQ,
    masked_spread,
)
from espnet_taste.tokenizer.contracts import AbsQuantizer

__all__ = ["NoQuantizer", "QuantizerOutput", "RvqQuantizer"]


class RvqQuantizer(AbsQuantizer):
    """Residual vector quantizer; defaults are the released sizes.

    Args:
        input_dim: Feature width D.
        codebook_dim: Codebook width d.
        codebook_size: Entries per codebook K.
        num_codebooks: Number of codebooks Q.
        decay: EMA decay of the codebooks.
        quantizer_dropout: Draw the number of active codebooks of a training step.
        dead_code_threshold: Revive entries chosen less often per step; 0 never.
        update_codebooks: Move the codebooks in training.
        straight_through: "summed" (released) or "single"; see ``ResidualVQ``.
        start_projections: What ``initialise`` does to the projections: "pca" sets them
            to the main directions of the features, "random" leaves them (released).
        seed: Seed of the dropout and of revived entries.
    """

    def __init__(
        self,
        input_dim: int = 1280,
        codebook_dim: int = 256,
        codebook_size: int = 512,
        num_codebooks: int = 4,
        *,
        decay: float = 0.99,
        quantizer_dropout: bool = True,
        dead_code_threshold: float = 0.0,
        update_codebooks: bool = True,
        straight_through: Literal["summed", "single"] = "summed",
        start_projections: Literal["random", "pca"] = "pca",
        seed: int = 0,
    ):
        super().__init__()
        if start_projections not in ("random", "pca"):
            raise ValueError(
                "start_projections must be 'random' or 'pca', "
                f"got {start_projections!r}"
            )
        self.rvq = ResidualVQ(
            input_dim,
            codebook_dim,
            codebook_size,
            num_codebooks,
            decay=decay,
            quantizer_dropout=quantizer_dropout,
            dead_code_threshold=dead_code_threshold,
            update_codebooks=update_codebooks,
            straight_through=straight_through,
            seed=seed,
        )
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.codebook_dim = codebook_dim
        self.start_projections = start_projections

    def initialise(
        self, features: Tensor, *, generator: torch.Generator, num_iterations: int = 100
    ) -> None:
        """Start the codebooks from training data; see ``ResidualVQ.initialise``."""
        self.rvq.initialise(
            features,
            generator=generator,
            num_iterations=num_iterations,
            pca=self.start_projections == "pca",
        )

    def forward(self, features: Tensor, mask: Tensor) -> QuantizerOutput:
        """Quantize; see the contract."""
        return self.rvq(features, mask)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the TASTE embeddings of codes; see the contract."""
        return self.rvq.decode(codes)

    def sum_codes(self, codes: Tensor) -> Tensor:
        """Add the entries of codes; see the contract."""
        return self.rvq.sum_codes(codes)

    def quantize_latent(self, latent: Tensor) -> Tensor:
        """Code vectors of codebook space; see the contract."""
        return self.rvq.quantize_latent(latent)

    def statistics(self, output: QuantizerOutput) -> dict[str, Tensor]:
        """Return the running perplexity of every codebook and the latents' spread.

        Perplexity counts the entries in use: K when all are chosen equally often,
        1 when the codebook has collapsed.
        """
        values = {"latent_spread": output.spread}
        for number, codebook in enumerate(self.rvq.codebooks):
            share = codebook.count / codebook.count.sum()
            entropy = -torch.xlogy(share, share).sum()
            values[f"code_perplexity_{number}"] = entropy.exp()
        return values


class NoQuantizer(AbsQuantizer):
    """Pass features through; the tokenizer without its discrete bottleneck."""

    num_codebooks = 0
    codebook_size = 0
    codebook_dim = 0

    def forward(self, features: Tensor, mask: Tensor) -> QuantizerOutput:
        """Return the features themselves, no codes and no loss."""
        spread = masked_spread(features.detach().float(), mask)
        return QuantizerOutput(features, None, features.new_zeros(1), spread)

    def decode(self, codes: Tensor) -> Tensor:
        """Refuse: there are no codes."""
        raise _no_codes()

    def sum_codes(self, codes: Tensor) -> Tensor:
        """Refuse: there are no codes."""
        raise _no_codes()

    def quantize_latent(self, latent: Tensor) -> Tensor:
        """Refuse: there are no codes."""
        raise _no_codes()

    def statistics(self, output: QuantizerOutput) -> dict[str, Tensor]:
        """Return the features' spread."""
        return {"latent_spread": output.spread}


def _no_codes() -> ValueError:
    return ValueError("this tokenizer has no quantizer, hence no codes; use 'rvq'")
