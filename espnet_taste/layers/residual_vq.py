"""Residual vector quantizer with EMA codebooks.

Numerically equal to the released quantizer in codes, losses, gradients and
buffers; what differs on purpose is an option that is off by default. Codebooks
start from training data by an explicit call, never lazily from whatever batch
comes first (reference defect C17).

Symbols: B batch, T tokens, D feature width, d codebook width, K codebook size,
Q number of codebooks, N vectors.

Source: TASTE (arXiv:2504.07053); SoundStream (arXiv:2107.03312) for the residual
scheme.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, distributed, nn

from espnet_taste.layers.ema_codebook import EmaCodebook
from espnet_taste.layers.kmeans import cluster_sums, nearest_means, random_start
from espnet_taste.layers.precision import in_float64
from espnet_taste.types import IGNORE


@dataclass(frozen=True)
class QuantizerOutput:
    """Result of quantizing one batch."""

    quantized: Tensor  # (B, T, D); padding holds project_out's bias, not zeros
    codes: Tensor | None  # (B, T, Q) int64; IGNORE on padding and inactive codebooks
    commitment: Tensor  # (Q,); 0 for inactive codebooks and in eval mode
    spread: Tensor | None = None  # (), mean deviation of a latent's dimensions


class ResidualVQ(nn.Module):
    """Quantize features with Q codebooks, each coding what the previous left over.

    Args:
        input_dim: Feature width D.
        codebook_dim: Codebook width d.
        codebook_size: Entries per codebook K.
        num_codebooks: Number of codebooks Q.
        decay: EMA decay of the codebooks.
        quantizer_dropout: Draw the number of active codebooks of every training
            step, 1..Q with equal chance. All ranks draw alike: the draw depends on
            ``seed`` and the number of steps only.
        dead_code_threshold: Revive entries whose averaged count per step is below
            this, from vectors of the batch; 0 never does (released).
        update_codebooks: Move the codebooks in train mode; may be set later.
        straight_through: "summed" passes the gradient once per active codebook
            (released, defect C19); "single" passes it once.
        seed: Seed of the draws above.
    """

    def __init__(
        self,
        input_dim: int,
        codebook_dim: int,
        codebook_size: int,
        num_codebooks: int,
        *,
        decay: float = 0.99,
        quantizer_dropout: bool = False,
        dead_code_threshold: float = 0.0,
        update_codebooks: bool = True,
        straight_through: Literal["summed", "single"] = "summed",
        seed: int = 0,
    ):
        super().__init__()
        if straight_through not in ("summed", "single"):
            raise ValueError(
                f"straight_through must be 'summed' or 'single', "
                f"got {straight_through!r}"
            )
        self.project_in = nn.Linear(input_dim, codebook_dim)
        self.project_out = nn.Linear(codebook_dim, input_dim)
        self.codebooks = nn.ModuleList(
            EmaCodebook(codebook_size, codebook_dim, decay)
            for _ in range(num_codebooks)
        )
        self.quantizer_dropout = quantizer_dropout
        self.dead_code_threshold = dead_code_threshold
        self.update_codebooks = update_codebooks
        self.straight_through = straight_through
        self.seed = seed
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.long))
        # What decides about control flow is kept on the host as well: reading a
        # buffer would stop the device in every step.
        self._num_initialised = 0
        self._num_steps = 0
        self.register_load_state_dict_post_hook(_read_host_state)

    @property
    def num_codebooks(self) -> int:
        """Q."""
        return len(self.codebooks)

    @property
    def codebook_size(self) -> int:
        """K."""
        return self.codebooks[0].embed.size(0)

    @property
    def codebook_dim(self) -> int:
        """d."""
        return self.codebooks[0].embed.size(1)

    @torch.no_grad()
    def initialise(
        self,
        features: Tensor,
        *,
        generator: torch.Generator,
        num_iterations: int = 100,
        pca: bool = False,
        start_indices: Tensor | None = None,
    ) -> None:
        """Start the codebooks from training data by k-means.

        On several ranks, call it with the same features and generator seed.

        Args:
            features: Features of valid tokens of training data, (N, D), float.
            generator: CPU generator of the random start.
            num_iterations: Lloyd iterations per codebook (released: 100).
            pca: First set the projections to the d main directions of the
                features, so that quantizing starts with what varies most, and to a
                scale at which latents have a mean square of 1.
            start_indices: Rows of ``features`` to start from, (Q, at least K),
                int64; None draws them.

        Raises:
            ValueError: If a feature is not finite, or there are fewer features
                than ``pca`` needs.
        """
        features = features.float()
        if not bool(torch.isfinite(features).all()):
            raise ValueError("the quantizer cannot start from features with NaN or inf")
        if pca:
            self._start_projections(features)
        residual = self.project_in(features)
        for number, codebook in enumerate(self.codebooks):
            if start_indices is None:
                start = random_start(residual, self.codebook_size, generator)
            else:
                start = residual[start_indices[number, : self.codebook_size]]
            codebook.initialise(residual, start, num_iterations)
            residual = residual - codebook.embed[self._nearest(codebook, residual)]
        _read_host_state(self)

    def forward(
        self, features: Tensor, mask: Tensor, num_active: int | None = None
    ) -> QuantizerOutput:
        """Quantize a batch; in train mode also update the codebooks.

        Every active codebook passes the gradient straight through, so the gradient
        of the summed codes w.r.t. the projected input is the number of active
        codebooks times the identity (``straight_through="summed"``).

        Args:
            features: (B, T, D), float.
            mask: True on valid tokens, (B, T), bool.
            num_active: Codebooks to use, 1..Q; None means all, or a draw in train
                mode with quantizer dropout.

        Returns:
            The quantized features, their codes and the commitment losses.

        Raises:
            ValueError: If ``num_active`` is not in 1..Q.
            RuntimeError: If the codebooks were never initialised.
        """
        num_active = self._choose_active(num_active)
        # Distances and averages want fp32 whatever the surroundings compute in.
        with torch.autocast(features.device.type, enabled=False):
            features = features.float().masked_fill(~mask[..., None], 0.0)
            return self._quantize(self.project_in(features), mask, num_active)

    def sum_codes(self, codes: Tensor) -> Tensor:
        """Look up and add the entries, (..., Q) -> (..., d); IGNORE adds nothing."""
        self._require_initialised(self.num_codebooks)
        total = 0.0
        for number, codebook in enumerate(self.codebooks):
            index = codes[..., number]
            entry = codebook.embed[index.clamp(min=0)]
            total = total + entry.masked_fill((index == IGNORE)[..., None], 0.0)
        return total

    def decode(self, codes: Tensor) -> Tensor:
        """Return the TASTE embedding of codes, (..., Q) -> (..., D)."""
        with torch.autocast(codes.device.type, enabled=False):
            return self.project_out(self.sum_codes(codes))

    @torch.no_grad()
    def quantize_latent(self, latent: Tensor) -> Tensor:
        """Code a latent that is already in codebook space, (..., d) -> (..., Q).

        Greedy, hence not idempotent: coding a sum of entries may return others.
        """
        self._require_initialised(self.num_codebooks)
        latent = latent.float()
        codes = []
        for codebook in self.codebooks:
            index = self._nearest(codebook, latent)
            latent = latent - codebook.embed[index]
            codes.append(index)
        return torch.stack(codes, dim=-1)

    def _quantize(
        self, latents: Tensor, mask: Tensor, num_active: int
    ) -> QuantizerOutput:
        valid = mask[..., None]
        num_values = mask.sum().clamp(min=1) * latents.size(-1)
        residual, total = latents, torch.zeros_like(latents)
        codes = torch.full(
            (*mask.shape, self.num_codebooks), IGNORE, device=mask.device
        )
        losses = [latents.new_zeros(())] * self.num_codebooks
        coded = []
        for number, codebook in enumerate(self.codebooks[:num_active]):
            index = self._nearest(codebook, residual.detach())
            entry = codebook.embed[index]
            codes[..., number] = index.masked_fill(~mask, IGNORE)
            coded.append((residual.detach(), index))
            if self.training:
                error = (entry - residual).masked_fill(~valid, 0.0)
                losses[number] = error.square().sum() / num_values
                entry = residual + (entry - residual).detach()  # straight-through
            step = entry.masked_fill(~valid, 0.0)
            residual = residual - step.detach()
            total = total + step
        if self.straight_through == "single":
            step = latents.masked_fill(~valid, 0.0)
            total = step + (total - step).detach()
        if self.training and self.update_codebooks:
            # ESPnet skips the step of a loss that is not finite; codebooks would keep
            # what made it so.
            self._update(coded, mask & latents.detach().isfinite().all(-1))
        if self.training:
            self._num_steps += 1
            self.num_steps += 1
        return QuantizerOutput(
            self.project_out(total),
            codes,
            torch.stack(losses),
            masked_spread(latents.detach(), mask),
        )

    @torch.no_grad()
    def _update(self, coded: list[tuple[Tensor, Tensor]], mask: Tensor) -> None:
        """Move the codebooks by what all ranks have coded in this step.

        Args:
            coded: Per active codebook the vectors (B, T, d) and indices (B, T).
            mask: True on tokens that count, (B, T).
        """
        flat_mask = mask.flatten()
        statistics = []
        for vectors, index in coded:
            # Padding goes to an extra entry: selecting the valid rows would have
            # to wait for the device to learn how many there are.
            slots = torch.where(flat_mask, index.flatten(), self.codebook_size)
            counts, sums = cluster_sums(
                vectors.flatten(0, 1), slots, self.codebook_size + 1
            )
            statistics.append(torch.cat([counts[:-1, None], sums[:-1]], dim=1))
        stacked = torch.stack(statistics)
        # Asked for at call time: the process group may be younger than the model
        # (reference defect C20).
        if _is_distributed():
            distributed.all_reduce(stacked)
        for codebook, values in zip(self.codebooks, stacked):
            codebook.update(values[:, 0], values[:, 1:])
        if self.dead_code_threshold > 0:
            self._revive(coded, flat_mask)

    def _revive(self, coded: list[tuple[Tensor, Tensor]], flat_mask: Tensor) -> None:
        """Offer random valid vectors of the batch to entries nobody chooses."""
        generator = torch.Generator().manual_seed(self._step_seed())
        order = flat_mask.cumsum(0)
        for codebook, (vectors, _) in zip(self.codebooks, coded):
            draws = torch.rand(self.codebook_size, generator=generator)
            rank = (draws.to(order.device) * order[-1]).long() + 1
            rows = torch.searchsorted(order, rank).clamp(max=len(order) - 1)
            candidates = vectors.flatten(0, 1)[rows]
            # Where no vector counts, what was found is padding.
            candidates = candidates.masked_fill(order[-1] == 0, torch.nan)
            if _is_distributed():
                distributed.broadcast(candidates, src=0)
            codebook.revive(candidates, self.dead_code_threshold)

    def _choose_active(self, num_active: int | None) -> int:
        if num_active is None:
            num_active = self.num_codebooks
            if self.training and self.quantizer_dropout:
                draws = random.Random(self._step_seed())
                num_active = draws.randint(1, self.num_codebooks)
        if not 1 <= num_active <= self.num_codebooks:
            raise ValueError(
                f"num_active must be in 1..{self.num_codebooks}, got {num_active}"
            )
        self._require_initialised(num_active)
        return num_active

    def _step_seed(self) -> int:
        """Return a seed that is the same on all ranks in this step."""
        return self.seed * 1_000_003 + self._num_steps

    def _require_initialised(self, num_codebooks: int) -> None:
        if self._num_initialised < num_codebooks:
            raise RuntimeError(
                f"only {self._num_initialised} of {num_codebooks} codebooks are "
                "initialised; call initialise() with features of training data or load "
                "a checkpoint"
            )

    @staticmethod
    def _nearest(codebook: EmaCodebook, vectors: Tensor) -> Tensor:
        return nearest_means(vectors, codebook.embed)

    def _start_projections(self, features: Tensor) -> None:
        """Set the projections to the main directions of the features."""
        num_features, dim = features.shape
        if num_features <= self.codebook_dim or dim < self.codebook_dim:
            raise ValueError(
                f"pca to {self.codebook_dim} dimensions needs more features of at "
                f"least that width, got {num_features} of width {dim}"
            )
        features = in_float64(features)
        mean = features.mean(0)
        centred = features - mean
        _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
        main = directions[:, -self.codebook_dim :].flip(1)  # (D, d)
        # The spoken LM predicts latents with unit variance in mind; at the scale of
        # the features its code loss would drown its text loss.
        spread = (centred @ main).square().mean().sqrt().clamp(min=1e-12)
        self.project_in.weight.copy_(main.T / spread)
        self.project_in.bias.copy_(-(mean @ main) / spread)
        self.project_out.weight.copy_(main * spread)
        self.project_out.bias.copy_(mean)


def masked_spread(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the deviation of valid vectors, averaged over their dimensions.

    Latents that shrink to what the codebooks find easy show here first.

    Args:
        vectors: (B, T, d), float.
        mask: True on valid vectors, (B, T).

    Returns:
        0-dim, float.
    """
    is_padding = ~mask[..., None]
    count = mask.sum().clamp(min=1)
    mean = vectors.masked_fill(is_padding, 0.0).sum((0, 1)) / count
    deviation = (vectors - mean).masked_fill(is_padding, 0.0)
    variance = deviation.square().sum((0, 1)) / count
    return variance.sqrt().mean()


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _read_host_state(rvq: ResidualVQ, incompatible_keys: Any = None) -> None:
    """Refresh what the host keeps of the buffers, after they were set."""
    flags = [bool(codebook.initialised > 0) for codebook in rvq.codebooks]
    rvq._num_initialised = (flags + [False]).index(False)
    rvq._num_steps = int(rvq.num_steps)
