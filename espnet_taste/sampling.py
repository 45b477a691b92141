"""Choosing an index from logits: ban list, nucleus, top-k, penalty, draw.

Every function takes logits (B, V) in float32 and returns new ones or indices
(B,); nothing is written in place, nothing is kept between calls, and every random
draw takes its source: a ``torch.Generator``, or ``RowStreams``, with which a row gets
the same in whatever batch it stands. A removed index keeps a finite logit, so that a
row with everything removed still has a distribution (over all of them) and no NaN.

Two orders of the same steps exist, because they differ in what they draw:

* ``"released"``: nucleus on the untempered distribution, then repetition
  penalty, then temperature. Its nucleus drops the index that crosses the
  threshold, so drawing is greedy whenever the two best together exceed it.
* ``"standard"``: penalty, temperature, top-k, then a nucleus that keeps the
  crossing index, as in most other libraries.

Source: TASTE (arXiv:2504.07053); released sampler of the reference. Nucleus
sampling: arXiv:1904.09751. Repetition penalty: CTRL (arXiv:1909.05858).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import Literal

import torch
from torch import Tensor

REMOVED = -100000.0
"""Logit of a removed index; its probability is exactly 0 in float32."""


def remove(logits: Tensor, removed: Tensor) -> Tensor:
    """Take indices out of the choice.

    Args:
        logits: (B, V), float.
        removed: True where the index must not be drawn, (V,) or (B, V), bool.

    Returns:
        Logits, (B, V), with ``REMOVED`` at those indices.
    """
    return logits.masked_fill(removed, REMOVED)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Remove all but the ``k`` best indices; ties at the border are all kept.

    Args:
        logits: (B, V), float.
        k: How many to keep, at least 1; a ``k`` of V or more keeps all.

    Returns:
        Logits, (B, V).

    Raises:
        ValueError: If ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    worst = logits.topk(min(k, logits.size(-1)), dim=-1).values[..., -1:]
    return remove(logits, logits < worst)


def keep_nucleus(
    logits: Tensor, top_p: float, rule: Literal["released", "standard"] = "standard"
) -> Tensor:
    """Remove the tail of the distribution; the best index always stays.

    Args:
        logits: (B, V), float.
        top_p: Probability mass to keep, 0..1.
        rule: ``"standard"`` keeps the index whose probability crosses ``top_p``,
            ``"released"`` drops it: only indices whose cumulative probability,
            themselves included, is at most ``top_p`` stay.

    Returns:
        Logits, (B, V).
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = ordered.float().softmax(-1)
    mass = probs.cumsum(-1)
    tail = mass > top_p if rule == "released" else mass - probs >= top_p
    tail[..., 0] = False
    return remove(logits, torch.zeros_like(tail).scatter(-1, order, tail))


def penalise_seen(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make indices of the context less likely, however often they occurred.

    Args:
        logits: (B, V), float.
        seen: True at indices of the context, (B, V), bool.
        penalty: Factor, 1 = none; positive logits are divided by it, negative
            ones multiplied.

    Returns:
        Logits, (B, V).
    """
    lowered = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, lowered, logits)


class RowStreams:
    """Random numbers of which every row has its own stream.

    One generator for a batch gives a row other numbers in another batch. Here they
    depend on the row's seed alone.

    Args:
        seeds: One a row.
        device: Where the numbers are needed.
    """

    # Numbers fetched at a time: a step must not wait for a transfer to the device.
    AHEAD = 256

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu"):
        # numpy's integers are seeds too.
        self._generators = [torch.Generator().manual_seed(index(s)) for s in seeds]
        self._left = torch.empty(len(self._generators), 0, device=device)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._generators)

    def uniform(self, count: int) -> Tensor:
        """Return the next ``count`` numbers of every row.

        Returns:
            Uniform in [0, 1), (B, count), float32.
        """
        if self._left.size(1) < count:
            size = max(self.AHEAD, count)
            fresh = [torch.rand(size, generator=g) for g in self._generators]
            fresh = torch.stack(fresh).to(self._left.device, non_blocking=True)
            self._left = torch.cat([self._left, fresh], 1)
        now, self._left = self._left.split([count, self._left.size(1) - count], 1)
        return now

    def select(self, rows: Tensor) -> "RowStreams":
        """Return the streams of some rows, (n,) int64.

        What is drawn from them is drawn here too, for all rows.
        """
        return _SelectedStreams(self, rows)


class _SelectedStreams(RowStreams):
    """Some rows of streams, which go on together with the others."""

    def __init__(self, whole: RowStreams, rows: Tensor):
        self._whole, self._rows = whole, rows

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def uniform(self, count: int) -> Tensor:
        """Return the next ``count`` numbers of every row, (n, count), float32."""
        return self._whole.uniform(count)[self._rows]


RandomSource = torch.Generator | RowStreams | None
"""Where a draw gets its randomness; None is torch's default generator."""


def draw(logits: Tensor, source: RandomSource = None) -> Tensor:
    """Draw one index a row from the softmax of the logits.

    Args:
        logits: (B, V), float. With streams of fewer rows, an equal number of
            consecutive rows belongs to each of them.
        source: Source of randomness; a generator is on the device of the logits.

    Returns:
        Indices, (B,), int64.
    """
    if not isinstance(source, RowStreams):
        probs = logits.float().softmax(-1)
        return torch.multinomial(probs, 1, generator=source).squeeze(-1)
    # Double precision keeps the product below the mass, so that what has no
    # probability is never drawn. MPS has none.
    is_wide = logits.device.type != "mps"
    probs = logits.to(torch.float64 if is_wide else torch.float32).softmax(-1)
    numbers = source.uniform(len(logits) // len(source)).flatten()
    return _at_mass(probs, numbers)


def _at_mass(probs: Tensor, numbers: Tensor) -> Tensor:
    """Return the index at a share (B,) of the cumulative probabilities (B, V)."""
    mass = probs.cumsum(-1)
    drawn = (mass <= (numbers * mass[:, -1])[:, None]).sum(-1)
    if probs.dtype is torch.float64:
        return drawn
    # A sum in float32 may reach the product, or miss what stands beside a removed
    # index. That happens once in millions of draws and takes the best.
    drawn = drawn.clamp(max=probs.size(-1) - 1)
    is_possible = probs.gather(-1, drawn[:, None])[:, 0] > 0
    return torch.where(is_possible, drawn, probs.argmax(-1))


@dataclass(frozen=True)
class Sampler:
    """How to choose an index: the settings, and nothing that changes.

    ``top_p`` 0 and ``temperature`` 0 take the best index: with the released rule
    before any penalty, with the standard rule after it.

    Raises:
        ValueError: If a setting is out of its range, or ``top_k`` is given with
            the released rule, which has none.
    """

    top_p: float = 1.0  # probability mass of the nucleus, 0..1
    temperature: float = 1.0  # >= 0
    repetition_penalty: float = 1.0  # > 0; 1 = none
    top_k: int = 0  # 0 = no limit
    rule: Literal["released", "standard"] = "standard"

    def __post_init__(self) -> None:
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must be in 0..1, got {self.top_p}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be >= 0, got {self.temperature}")
        if self.repetition_penalty <= 0:
            raise ValueError(
                f"repetition_penalty must be > 0, got {self.repetition_penalty}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}")
        if self.rule not in ("released", "standard"):
            raise ValueError(
                f"rule must be 'released' or 'standard', got '{self.rule}'"
            )
        if self.rule == "released" and self.top_k:
            raise ValueError("the released rule has no top_k; use rule='standard'")

    @property
    def is_greedy(self) -> bool:
        """Tell whether the choice is the arg-max, without any randomness."""
        return self.top_p == 0 or self.temperature == 0

    def adjust(self, logits: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the logits whose softmax is drawn from.

        Args:
            logits: (B, V), float, banned indices removed already.
            seen: True at indices of the context, (B, V), bool; needed only with
                a repetition penalty.

        Returns:
            Logits, (B, V).

        Raises:
            ValueError: If the sampler is greedy; it draws from nothing.
        """
        if self.is_greedy:
            raise ValueError("a greedy sampler (top_p or temperature 0) never draws")
        if self.rule == "released":
            logits = keep_nucleus(logits, self.top_p, "released")
        if seen is not None and self.repetition_penalty != 1:
            logits = penalise_seen(logits, seen, self.repetition_penalty)
        logits = logits / self.temperature
        if self.rule == "released":
            return logits
        if self.top_k:
            logits = keep_top_k(logits, self.top_k)
        return keep_nucleus(logits, self.top_p) if self.top_p < 1 else logits

    def choose(
        self,
        logits: Tensor,
        seen: Tensor | None = None,
        *,
        source: RandomSource = None,
    ) -> Tensor:
        """Choose one index a row.

        Args:
            logits: (B, V), float, banned indices removed already.
            seen: True at indices of the context, (B, V), bool, or None.
            source: Source of randomness; a greedy choice draws nothing.

        Returns:
            Indices, (B,), int64.
        """
        if not self.is_greedy:
            return draw(self.adjust(logits, seen), source)
        penalty_counts = self.repetition_penalty != 1 and self.rule == "standard"
        if seen is not None and penalty_counts:
            logits = penalise_seen(logits, seen, self.repetition_penalty)
        return logits.argmax(-1)
