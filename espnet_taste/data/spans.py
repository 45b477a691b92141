"""Cut utterances into word spans and mask unit history.

A unit LM trained on whole utterances of a small corpus over-fits to its own unit
history and never finds out where in the text it is. Short spans, cut at word
boundaries, put the right text next to the units, and masked history makes the
text worth reading. Both are options of the batch maker; released models were
trained without them.

Symbols: W words, S units.
"""

import numpy as np

# Words a span; 0 means all the words that are left.
SPAN_SIZES = (1, 2, 3, 4, 6, 8, 12, 0)


def unit_boundaries(
    word_times: np.ndarray, num_units: int, unit_rate_hz: float
) -> np.ndarray:
    """Return where the units of every word begin and end.

    The pause between two words is divided at its middle, and the first and last
    words take the silence before and after them, so the words tile the units.

    Args:
        word_times: Start and end of every word in seconds, (W, 2), float.
        num_units: Units of the utterance S.
        unit_rate_hz: Units a second.

    Returns:
        Boundaries, (W + 1,), int64, non-decreasing, from 0 to S; word w owns the
        units ``[boundaries[w], boundaries[w + 1])``.

    Raises:
        ValueError: If ``word_times`` is not (W, 2) with W >= 1.
    """
    if word_times.ndim != 2 or word_times.shape[1] != 2 or len(word_times) == 0:
        raise ValueError(
            f"word_times must have the shape (words, 2), got {word_times.shape}"
        )
    middles = (word_times[:-1, 1] + word_times[1:, 0]) / 2
    inner = np.rint(middles * unit_rate_hz).astype(np.int64)
    inner = np.maximum.accumulate(inner.clip(0, num_units)) if len(inner) else inner
    return np.concatenate([[0], inner, [num_units]]).astype(np.int64)


def random_spans(
    num_words: int, sizes: tuple[int, ...], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Cut words 0..W-1 into consecutive spans of randomly chosen sizes.

    Args:
        num_words: W, at least 1.
        sizes: Sizes to draw from, uniformly; 0 means all words that are left.
        rng: Source of randomness.

    Returns:
        Half-open word ranges ``(start, stop)`` that tile ``[0, W)``.
    """
    spans = []
    start = 0
    while start < num_words:
        size = int(rng.choice(sizes)) or num_words
        stop = min(start + size, num_words)
        spans.append((start, stop))
        start = stop
    return spans


def random_unit_mask(
    num_units: int, max_share: float, rng: np.random.Generator
) -> np.ndarray:
    """Choose which unit inputs are hidden; the share is drawn per row.

    Args:
        num_units: Units of the row.
        max_share: Largest share hidden, 0..1; the share is uniform below it.
        rng: Source of randomness.

    Returns:
        True where the unit is replaced by the mask vector, (num_units,), bool.
    """
    share = rng.uniform(0.0, max_share)
    return rng.random(num_units) < share
