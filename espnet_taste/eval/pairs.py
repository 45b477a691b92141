"""How often the right half of a pair is the likelier one.

A pair counts 1, 0, or one half if both are equally likely, as in SALMon. A pair with a
half that has no score is left out and counted: the denominator never changes silently.

Source: SALMon (arXiv:2409.07437); spoken StoryCloze (arXiv:2305.13009).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from espnet_taste.data.pair_sets import Pair
from espnet_taste.eval.bootstrap import Interval, RatioData, ratio_interval

# The mean that the TASTE paper calls SALMON: SALMon's parts on consistency.
SALMON_CONSISTENCY = (
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_consistency",
    "speaker_consistency",
)


@dataclass(frozen=True)
class PairScores:
    """Outcome of a part."""

    part: str
    accuracy: Interval  # of the pairs that have both scores
    num_pairs: int  # all of them
    ties: int
    skipped: dict[str, str] = field(default_factory=dict)  # pair to the half missing


def score_pairs(
    pairs: Iterable[Pair], scores: Mapping[str, float]
) -> dict[str, PairScores]:
    """Compare the halves of all pairs.

    Args:
        pairs: What to compare.
        scores: Utterance id to log-likelihood, finite.

    Returns:
        Part to its outcome, in the order of the pairs.

    Raises:
        ValueError: If a score is not finite, or fewer than 2 pairs of a part have both.
    """
    by_part: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_part.setdefault(pair.part, []).append(pair)
    return {part: _score_part(part, row, scores) for part, row in by_part.items()}


def mean_of_parts(
    results: Mapping[str, PairScores], parts: Sequence[str]
) -> float | None:
    """Return the unweighted mean accuracy of parts; None if one is not there."""
    if not all(part in results for part in parts):
        return None
    return float(np.mean([results[part].accuracy.value for part in parts]))


def _score_part(
    part: str, pairs: Sequence[Pair], scores: Mapping[str, float]
) -> PairScores:
    outcomes, skipped = [], {}
    for pair in pairs:
        missing = [key for key in (pair.positive, pair.negative) if key not in scores]
        if missing:
            skipped[pair.pair] = ", ".join(missing)
            continue
        right, wrong = scores[pair.positive], scores[pair.negative]
        if not np.isfinite([right, wrong]).all():
            raise ValueError(f"pair {pair.pair}: scores {right} and {wrong}")
        outcomes.append(0.5 if right == wrong else float(right > wrong))
    if len(outcomes) < 2:
        raise ValueError(
            f"{part}: {len(outcomes)} of {len(pairs)} pairs have both scores, at least "
            f"2 are needed; missing e.g. {list(skipped.values())[:3]}"
        )
    values = np.array(outcomes)
    interval = ratio_interval(RatioData(values, np.ones_like(values)))
    return PairScores(part, interval, len(pairs), int((values == 0.5).sum()), skipped)
