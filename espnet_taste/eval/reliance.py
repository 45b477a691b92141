"""Reliance: what does the decoder lose when its condition is another utterance's?

The rise of the pooled held-out unit loss, in nats per unit, when the text, the
codes or both are exchanged. Near zero means that the decoder ignores the condition,
and then no other number of that row says anything about it.

A rise shows that the condition is *used*, not that it is used well: a wrong text can
hurt more than no text. Read it beside the loss itself.
"""

from collections.abc import Mapping

import numpy as np

from espnet_taste.eval.bootstrap import (
    RESAMPLES,
    SEED,
    Interval,
    RatioData,
    ratio_interval,
)
from espnet_taste.eval.unit_scores import EXCHANGES, MATCHED, UnitCounts, UnitScores


def rise_items(scores: UnitScores) -> dict[str, dict[str, float]]:
    """Return the summed rise of every exchange per utterance.

    Args:
        scores: Counts by condition and utterance, the same utterances in each.

    Returns:
        Utterance id to ``rise_<condition>_sum``, nats, for the conditions present.
    """
    matched = scores[MATCHED]
    return {
        key: {
            f"rise_{condition}_sum": scores[condition][key].loss_sum - counts.loss_sum
            for condition in EXCHANGES
            if condition in scores
        }
        for key, counts in matched.items()
    }


def measure_rise(
    matched: Mapping[str, UnitCounts],
    exchanged: Mapping[str, UnitCounts],
    *,
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the rise of the unit loss with its paired bootstrap interval.

    Args:
        matched: Counts per utterance with the utterance's own condition.
        exchanged: Counts for the same units with another utterance's.
        seed: Seed of the draws.
        resamples: Number of resamples.

    Raises:
        ValueError: If the two do not cover the same utterances and units.
    """
    if matched.keys() != exchanged.keys():
        unpaired = sorted(matched.keys() ^ exchanged.keys())
        raise ValueError(f"scored under one condition only: {unpaired[:10]}")
    for key, counts in matched.items():
        if exchanged[key].count != counts.count:
            raise ValueError(f"'{key}' predicts other units when exchanged")
    keys = sorted(matched)
    rises = [exchanged[key].loss_sum - matched[key].loss_sum for key in keys]
    counts = [matched[key].count for key in keys]
    data = RatioData(np.array(rises), np.array(counts, dtype=np.float64))
    return ratio_interval(data, seed=seed, resamples=resamples)
