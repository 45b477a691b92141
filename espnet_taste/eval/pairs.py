"""How often the right half of a pair is the likelier one.

A pair counts 1, 0, or one half if both are equally likely, as in SALMon; the same item
differs by rounding from batch to batch, which is no difference. A pair with a half that
has no score is left out and counted: the denominator never changes silently.

Source: SALMon (arXiv:2409.07437); spoken StoryCloze (arXiv:2305.13009).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from espnet_taste.data.pair_sets import Pair
from espnet_taste.eval.bootstrap import Interval, mean_interval, mean_of_means

# Scores as near as this are equal: of one item in two batches, in float32, some 1e-8.
TIE = 1e-6
# The mean that the TASTE paper calls SALMON: SALMon's parts on consistency.
SALMON_CONSISTENCY = (
    "bg_all_consistency",
    "bg_domain_consistency",
    "gender_consistency",
    "rir_consistency",
    "sentiment_consistency",
    "speaker_consistency",
)
STORYCLOZE = ("sSC", "tSC")
SALMON_MEAN = "mean of SALMon's 6 parts on consistency"
STORYCLOZE_MEAN = "mean of sSC and tSC"
OVERALL_MEAN = "mean of both means"
# What table 2 of the TASTE paper calls these.
COLUMNS = {
    SALMON_MEAN: "SALMON",
    STORYCLOZE_MEAN: "StoryCloze",
    OVERALL_MEAN: "overall",
}
# Name of a mean to the weights of its parts.
MEANS = {
    SALMON_MEAN: dict.fromkeys(SALMON_CONSISTENCY, 1 / 6),
    STORYCLOZE_MEAN: dict.fromkeys(STORYCLOZE, 1 / 2),
    OVERALL_MEAN: {
        **dict.fromkeys(SALMON_CONSISTENCY, 1 / 12),
        **dict.fromkeys(STORYCLOZE, 1 / 4),
    },
}


@dataclass(frozen=True)
class PairScores:
    """Outcome of a part, or of a mean of parts."""

    part: str
    accuracy: Interval  # of the pairs that have both scores
    num_pairs: int  # all of them
    ties: int
    skipped: dict[str, str] = field(default_factory=dict)  # pair to the half missing
    outcomes: tuple[float, ...] = ()  # of a part: 0, 0.5 or 1 a pair


def score_pairs(
    pairs: Iterable[Pair], scores: Mapping[str, float]
) -> dict[str, PairScores]:
    """Compare the halves of all pairs.

    Args:
        pairs: What to compare.
        scores: Utterance id to log-likelihood, finite.

    Returns:
        Part to its outcome, in the order of the pairs; one of a single pair has no
        interval.

    Raises:
        ValueError: If a score is not finite, or no pair of a part has both.
    """
    by_part: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_part.setdefault(pair.part, []).append(pair)
    return {part: _score_part(part, row, scores) for part, row in by_part.items()}


def score_means(results: Mapping[str, PairScores]) -> dict[str, PairScores]:
    """Return the means of parts that can be formed.

    Parts are drawn independently: sSC and tSC tell the same stories, so the interval
    of their mean is a little too narrow.
    """
    found = {}
    for name, weights in MEANS.items():
        if not weights.keys() <= results.keys():
            continue
        parts = [results[part] for part in weights]
        groups = [np.array(part.outcomes) for part in parts]
        found[name] = PairScores(
            name,
            mean_of_means(groups, list(weights.values())),
            sum(part.num_pairs for part in parts),
            sum(part.ties for part in parts),
        )
    return found


def missing_parts(parts: Iterable[str]) -> dict[str, list[str]]:
    """Return what the means lack of which there is a part, but not all of them."""
    there = set(parts)
    gaps = {}
    for name in (SALMON_MEAN, STORYCLOZE_MEAN):
        missing = sorted(MEANS[name].keys() - there)
        if missing and there & MEANS[name].keys():
            gaps[name] = missing
    return gaps


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
        is_tie = math.isclose(right, wrong, rel_tol=TIE, abs_tol=TIE)
        outcomes.append(0.5 if is_tie else float(right > wrong))
    if not outcomes:
        raise ValueError(
            f"{part}: none of {len(pairs)} pairs has both scores; missing e.g. "
            f"{list(skipped.values())[:3]}"
        )
    accuracy = mean_interval(np.array(outcomes))
    ties = outcomes.count(0.5)
    return PairScores(part, accuracy, len(pairs), ties, skipped, tuple(outcomes))
