"""Whether an answer contains what was asked for.

An answer is right if one of the accepted ones occurs in it, word by word, after
``normalise`` and with numbers as digits (``numbers``): case, punctuation, how a number
is written and what stands around it do not count.

A spoken LM that was shown examples goes on with a question of its own and answers that,
too: what it says behind its first sentence is no answer (``first_sentence``).

Source: spoken question answering of Spectron (arXiv:2305.15255), LLaMA-Questions.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from espnet_taste.eval.bootstrap import mean_interval
from espnet_taste.eval.normalise import normalise
from espnet_taste.eval.numbers import with_digits

SEPARATOR = "|"  # between accepted answers in a table
# Their points end no sentence; nor do those of single letters and of "U.S.".
ABBREVIATIONS = frozenset("mr mrs ms dr st ste jr sr mt ft prof gen col lt rev".split())


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
    inside = f" {with_digits(said)} "
    return any(f" {with_digits(answer)} " in inside for answer in accepted)


def first_sentence(text: str) -> str:
    """Return a text up to its first sentence end; all of it if there is none."""
    words = text.split()
    for count, word in enumerate(words, start=1):
        if _ends_sentence(word) and normalise(" ".join(words[:count])):
            return " ".join(words[:count])
    return text


def _ends_sentence(word: str) -> bool:
    word = word.rstrip("\"')]\u201d\u2019")
    if not word.endswith((".", "!", "?")):
        return False
    stem = word.rstrip(".").lower()
    is_short = stem in ABBREVIATIONS or "." in stem or (len(stem) == 1 and word != stem)
    is_number = re.sub("[.,]", "", stem).isdecimal()
    return not (word.endswith(".") and is_short and not is_number)


def check_shots(shots: Mapping[str, str], questions: Mapping[str, str]) -> None:
    """Refuse examples that are among the questions.

    Args:
        shots: Id to what is said in an example, question and answer.
        questions: Id to question.

    Raises:
        ValueError: If an example has the id of a question, or holds its words.
    """
    asked = {key: normalise(text) for key, text in questions.items()}
    for shot, text in shots.items():
        inside = f" {normalise(text)} "
        for key, words in asked.items():
            if key == shot or (words and f" {words} " in inside):
                raise ValueError(
                    f"example '{shot}' is question '{key}'; take others as examples, "
                    "or leave those out of the questions"
                )


def check_not_asked(said: Mapping[str, str], questions: Mapping[str, str]) -> None:
    """Refuse what holds the questions beside the answers, whose words would count.

    Args:
        said: Question id to what was said.
        questions: Question id to question, where it is known.

    Raises:
        ValueError: If most begin with their question.
    """
    both = [key for key in said if normalise(questions.get(key, ""))]
    repeats = [
        key
        for key in both
        if f"{normalise(said[key])} ".startswith(f"{normalise(questions[key])} ")
    ]
    if len(repeats) > len(both) / 2:
        raise ValueError(
            f"{len(repeats)} of {len(both)} answers begin with their question, e.g. "
            f"'{repeats[0]}'; give the answers alone (complete --with_prompt false)"
        )


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
    found = mean_interval(right, seed=seed)
    return {
        "accuracy": found.value,
        "low": found.low,
        "high": found.high,
        "num_items": len(right),
        "num_right": int(right.sum()),
        "num_empty": sum(not normalise(item.said) for item in answers.values()),
    }
