"""Bootstrap intervals over utterances for ratios of pooled counts.

A score is sum(numerators) / sum(denominators). One resample draws as many
utterances as there are, with replacement, and recomputes that ratio. Utterances
are the unit because the words and units inside one are not independent. How often
each utterance is drawn is multinomial, so a resample is one row of a matrix
product, and a thousand cost no loop.

Two systems scored on the same utterances are compared under the same draws
(``paired_difference``), which removes what the utterances themselves contribute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 0
# Above this share of resamples without a denominator no interval is given.
MAX_UNDEFINED = 0.01
_CHUNK = 256  # resamples drawn at a time: 256 x 10,000 utterances are 20 MB
# Draws up to this size are kept, since a report uses them some hundred times: 64 MB.
_KEPT_ENTRIES = 8_000_000


@dataclass(frozen=True)
class Interval:
    """A score and its percentile bootstrap interval."""

    value: float
    low: float | None  # None if too many resamples had a denominator of 0
    high: float | None
    num_items: int

    @property
    def excludes_zero(self) -> bool:
        """Say whether the whole interval lies on one side of 0."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class RatioData:
    """Counts of one system, one entry per utterance."""

    numerators: np.ndarray  # (N,) float64
    denominators: np.ndarray  # (N,) float64, 0 or more

    def __post_init__(self):
        if self.numerators.shape != self.denominators.shape or (
            self.numerators.ndim != 1
        ):
            raise ValueError(
                "expected numerators and denominators of one shape (N,), got "
                f"{self.numerators.shape} and {self.denominators.shape}"
            )
        for name in ("numerators", "denominators"):
            bad = np.flatnonzero(~np.isfinite(getattr(self, name)))
            if bad.size:
                raise ValueError(f"{name}[{bad[0]}] is not a finite number")
        if (self.denominators < 0).any():
            raise ValueError("a denominator is negative")

    @property
    def ratio(self) -> float:
        """Pooled ratio of all utterances."""
        total = self.denominators.sum()
        if total == 0:
            raise ValueError("the denominators sum to 0: the score is undefined")
        return float(self.numerators.sum() / total)


def draw_weights(
    num_items: int, *, seed: int = SEED, resamples: int = RESAMPLES
) -> Iterator[np.ndarray]:
    """Yield how often every item is drawn, in chunks of resamples.

    Args:
        num_items: Number of utterances N, at least 2.
        seed: Seed of the draws.
        resamples: Number of resamples R.

    Yields:
        Draw counts, (r, N), float64; the r of all chunks add up to R.

    Raises:
        ValueError: If there are fewer than 2 items.
    """
    if num_items < 2:
        raise ValueError(f"an interval needs at least 2 utterances, got {num_items}")
    if num_items * resamples <= _KEPT_ENTRIES:
        yield _kept_weights(num_items, seed, resamples)
    else:
        yield from _fresh_weights(num_items, seed, resamples)


@lru_cache(maxsize=2)
def _kept_weights(num_items: int, seed: int, resamples: int) -> np.ndarray:
    """Return all draws at once, (R, N); the caller must not write to them."""
    weights = np.concatenate(list(_fresh_weights(num_items, seed, resamples)))
    weights.flags.writeable = False
    return weights


def _fresh_weights(num_items: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Draw chunk by chunk; the chunk size does not change the draws."""
    generator = np.random.default_rng(seed)
    share = np.full(num_items, 1.0 / num_items)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        yield generator.multinomial(num_items, share, size=rows).astype(np.float64)


def ratio_interval(
    data: RatioData,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return a pooled ratio with its bootstrap interval.

    Raises:
        ValueError: If there are fewer than 2 utterances or no denominator.
    """
    value = data.ratio
    num_items = len(data.numerators)
    draws = [
        _resampled(data, weights)
        for weights in draw_weights(num_items, seed=seed, resamples=resamples)
    ]
    return _interval(value, np.concatenate(draws), num_items, level)


def mean_interval(values: np.ndarray, *, seed: int = SEED) -> Interval:
    """Return a mean over utterances; a single one has a value and no interval.

    Args:
        values: One an utterance, (N,), float64, finite.
        seed: Seed of the draws.

    Raises:
        ValueError: If there is none.
    """
    data = RatioData(values, np.ones_like(values))
    if len(values) == 1:
        return Interval(data.ratio, None, None, 1)
    return ratio_interval(data, seed=seed)


def mean_of_means(
    groups: Sequence[np.ndarray], weights: Sequence[float], *, seed: int = SEED
) -> Interval:
    """Return a weighted sum of means of unrelated groups, each drawn by itself.

    Args:
        groups: Values of each group, (N,), float64, finite.
        weights: Of the groups; they add up to 1.
        seed: Seed of the draws.

    Returns:
        Without an interval if a group has a single value.

    Raises:
        ValueError: If a group has none.
    """
    sides = [RatioData(values, np.ones_like(values)) for values in groups]
    value = float(np.dot(weights, [side.ratio for side in sides]))
    num_items = sum(len(values) for values in groups)
    if min(len(values) for values in groups) < 2:
        return Interval(value, None, None, num_items)
    # A seed each: with the same, groups of equal size would be drawn alike.
    seeds = np.random.SeedSequence(seed).generate_state(len(sides))
    draws = 0.0
    for side, weight, state in zip(sides, weights, seeds, strict=True):
        rows = draw_weights(len(side.numerators), seed=int(state))
        draws += weight * np.concatenate([_resampled(side, row) for row in rows])
    return _interval(value, draws, num_items, LEVEL)


def paired_difference(
    first: RatioData,
    second: RatioData,
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """Return first minus second over the same utterances, under the same draws.

    Args:
        first: Counts of one system.
        second: Counts of another; entry n is the same utterance as in ``first``.
        seed: Seed of the draws.
        resamples: Number of resamples.
        level: Coverage of the interval, 0..1.

    Raises:
        ValueError: If the two have different numbers of utterances.
    """
    num_items = len(first.numerators)
    if len(second.numerators) != num_items:
        raise ValueError(
            "a paired comparison needs the same utterances on both sides, got "
            f"{num_items} and {len(second.numerators)}"
        )
    draws = [
        _resampled(first, weights) - _resampled(second, weights)
        for weights in draw_weights(num_items, seed=seed, resamples=resamples)
    ]
    return _interval(
        first.ratio - second.ratio, np.concatenate(draws), num_items, level
    )


def _resampled(data: RatioData, weights: np.ndarray) -> np.ndarray:
    """Return the ratio of every resample, (r,); NaN where nothing was drawn."""
    totals = weights @ data.denominators
    sums = weights @ data.numerators
    return np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)


def _interval(
    value: float, draws: np.ndarray, num_items: int, level: float
) -> Interval:
    """Turn resampled scores into a percentile interval."""
    defined = draws[~np.isnan(draws)]
    if 1 - len(defined) / len(draws) > MAX_UNDEFINED:
        return Interval(value, None, None, num_items)
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(value, float(low), float(high), num_items)
