"""Whether an answer contains what was asked for.

An answer is right if one of the accepted ones occurs in it, word by word, after
``normalise``: case, punctuation and what stands around it do not count.

Source: spoken question answering of Spectron (arXiv:2305.15255), LLaMA-Questions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_taste.eval.bootstrap import RatioData, ratio_interval
from espnet_taste.eval.normalise import normalise

SEPARATOR = "|"  # between accepted answers in a table


@dataclass(frozen=True)
class Answered:
    """One question."""

    said: str  # the answer as it was given
    accepted: tuple[str, ...]
    is_right: bool


def split_accepted(text: str) -> tuple[str, ...]:
    """Split a table's accepted answers, dropping those without a word.

    Raises:
        ValueError: If none is left.
    """
    answers = tuple(part.strip() for part in text.split(SEPARATOR))
    kept = tuple(part for part in answers if normalise(part))
    if not kept:
        raise ValueError(f"no accepted answer has a word: '{text}'")
    return kept


def contains_answer(said: str, accepted: Sequence[str]) -> bool:
    """Tell whether an accepted answer stands in what was said, in whole words."""
    inside = f" {normalise(said)} "
    return any(f" {normalise(answer)} " in inside for answer in accepted)


def judge_answers(
    said: Mapping[str, str], accepted: Mapping[str, Sequence[str]]
) -> dict[str, Answered]:
    """Judge every question; one without an answer is wrong.

    Args:
        said: Question id to the answer given.
        accepted: Question id to accepted answers; all of these count.

    Raises:
        ValueError: If an answer is to a question that is not asked.
    """
    unknown = sorted(said.keys() - accepted.keys())
    if unknown:
        raise ValueError(f"answers to questions that are not asked: {unknown[:10]}")
    return {
        key: Answered(
            said.get(key, ""),
            tuple(answers),
            contains_answer(said.get(key, ""), answers),
        )
        for key, answers in accepted.items()
    }


def summarise(answers: Mapping[str, Answered], *, seed: int = 0) -> dict[str, Any]:
    """Return the share of right answers with its interval.

    Returns:
        ``accuracy``, ``low`` and ``high`` (0..1; None for one question), ``num_items``,
        ``num_right`` and ``num_empty``.
    """
    right = np.array([answers[key].is_right for key in sorted(answers)], float)
    found = ratio_interval(RatioData(right, np.ones_like(right)), seed=seed)
    return {
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "num_items": len(right),
        "num_right": int(right.sum()),
        "num_empty": sum(not normalise(item.said) for item in answers.values()),
    }
