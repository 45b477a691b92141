"""Bits per step and per second of discrete streams.

*Nominal* is what a fixed-length code needs: log2 of the codebook size, per
codebook. *Used* is the empirical entropy of what was really sent, codebook by
codebook, so an unused entry costs nothing. It is an order-0 figure: an entropy
coder with context needs less. From few symbols the empirical entropy comes out too
low (by about (K - 1) / (2 N ln 2) bits), so the number of symbols is kept with it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StreamRate:
    """Rate of one stream of Q-fold symbols over a test set."""

    num_steps: int  # words for codes, units for units, characters for text
    seconds: float
    nominal_bits: float  # per step, all codebooks
    used_bits: float  # per step, all codebooks
    used_entries: tuple[int, ...]  # distinct entries seen, per codebook

    @property
    def steps_per_second(self) -> float:
        """Steps per second of audio."""
        return self.num_steps / self.seconds

    @property
    def nominal_bps(self) -> float:
        """Nominal bits per second."""
        return self.nominal_bits * self.steps_per_second

    @property
    def used_bps(self) -> float:
        """Empirical bits per second."""
        return self.used_bits * self.steps_per_second


def entropy_bits(counts: np.ndarray) -> float:
    """Return the empirical entropy of symbol counts in bits, 0 for no symbol."""
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum()
    if total == 0:
        return 0.0
    shares = counts[counts > 0] / total
    # abs: a single symbol gives -0.0, which would be printed with its sign.
    return abs(float(-(shares * np.log2(shares)).sum()))


def code_rate(
    codes: Mapping[str, np.ndarray], durations_s: Mapping[str, float], num_entries: int
) -> StreamRate:
    """Measure the rate of word codes or, with Q = 1, of units.

    Args:
        codes: Utterance id to codes, (W, Q) or (S,), integer valued, 0..K-1.
        durations_s: Utterance id to seconds of audio; at least the same ids.
        num_entries: Codebook size K.

    Returns:
        The rate over all utterances.

    Raises:
        ValueError: If an utterance has no duration, a code is out of range, or the
            number of codebooks differs between utterances.
    """
    tables = {key: _as_table(key, array, num_entries) for key, array in codes.items()}
    widths = {table.shape[1] for table in tables.values()}
    if len(widths) != 1:
        raise ValueError(f"expected one number of codebooks, got {sorted(widths)}")
    stacked = np.concatenate(list(tables.values()))
    counts = [np.bincount(column, minlength=num_entries) for column in stacked.T]
    return StreamRate(
        num_steps=len(stacked),
        seconds=_total_seconds(tables, durations_s),
        nominal_bits=len(counts) * float(np.log2(num_entries)),
        used_bits=sum(entropy_bits(count) for count in counts),
        used_entries=tuple(int((count > 0).sum()) for count in counts),
    )


def text_rate(texts: Mapping[str, str], durations_s: Mapping[str, float]) -> StreamRate:
    """Measure the transcript's own rate, character by character.

    The transcript travels with the codes, so it has a rate too. Characters keep the
    figure free of any tokenizer; nominal is log2 of the distinct characters seen.

    Raises:
        ValueError: If an utterance has no duration or there is no text at all.
    """
    counts = Counter("".join(texts.values()))
    if not counts:
        raise ValueError("the rate of an empty text is undefined")
    return StreamRate(
        num_steps=counts.total(),
        seconds=_total_seconds(texts, durations_s),
        nominal_bits=float(np.log2(len(counts))),
        used_bits=entropy_bits(np.array(list(counts.values()))),
        used_entries=(len(counts),),
    )


def _as_table(key: str, array: np.ndarray, num_entries: int) -> np.ndarray:
    """Check one utterance's codes and return them as (W, Q) int64."""
    table = np.asarray(array)
    table = table[:, None] if table.ndim == 1 else table
    # Arks hold float32; a code that is no whole number is no code.
    whole = table.astype(np.int64)
    if not np.array_equal(whole, table):
        raise ValueError(f"codes of '{key}' are not whole numbers")
    if whole.size and not (whole.min() >= 0 and whole.max() < num_entries):
        raise ValueError(
            f"codes of '{key}' must be in 0..{num_entries - 1}, got "
            f"{whole.min()}..{whole.max()}"
        )
    return whole


def _total_seconds(keys: Iterable[str], durations_s: Mapping[str, float]) -> float:
    """Add the durations of some utterances."""
    missing = [key for key in keys if key not in durations_s]
    if missing:
        raise ValueError(f"no duration for {len(missing)} utterances: {missing[:10]}")
    return float(sum(durations_s[key] for key in keys))


def rate_values(stream: str, rate: StreamRate) -> dict[str, float]:
    """Return a rate as values of a score file, named after the stream."""
    figures = {
        "steps": rate.num_steps,
        "seconds": rate.seconds,
        "nominal_bits": rate.nominal_bits,
        "used_bits": rate.used_bits,
        "nominal_bps": rate.nominal_bps,
        "used_bps": rate.used_bps,
        "used_entries": sum(rate.used_entries),
    }
    return {f"{stream}_{name}": float(value) for name, value in figures.items()}
