"""Scores of spoken continuations: perplexity of what is heard, and repetition.

* GenPPL: perplexity that a text LLM gives to the transcripts, pooled over tokens. A
  model that repeats itself has a low one, so it is read beside the next.
* ratings, estimated (``eval.mos``) or by a chat model (``eval.rater``): means.
* auto-BLEU: share of a text's n-grams that occur in it more than once, pooled over
  n-grams.

Source: Generative Spoken Language Modeling (arXiv:2102.01192), sections 4.1 and 4.2,
where both are means over utterances at several temperatures; here counts are pooled.
Its auto-BLEU is a mean over the orders up to n, too, and leaves out n-grams that
overlap; that of one order, overlaps counted, is SlamKit's (github.com/slp-rl/slamkit).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from espnet_taste.eval.bootstrap import RatioData, mean_interval, ratio_interval
from espnet_taste.eval.normalise import normalise

ORDER = 2  # n of the n-grams


@dataclass(frozen=True)
class Heard:
    """What was heard in one continuation, as counts."""

    text: str  # normalised transcript
    nats: float  # under the text LLM
    num_tokens: int
    num_words: int
    num_ngrams: int
    num_repeated: int


def repeated_ngrams(words: Sequence[str], order: int = ORDER) -> tuple[int, int]:
    """Return how many n-grams of a text occur more than once in it, and all of them.

    Raises:
        ValueError: If the order is below 1.
    """
    if order < 1:
        raise ValueError(f"the order of n-grams must be at least 1, got {order}")
    grams = [tuple(words[i : i + order]) for i in range(len(words) - order + 1)]
    counts = Counter(grams)
    return sum(counts[gram] > 1 for gram in grams), len(grams)


def behind_prompt(heard: str, prompt: str) -> str:
    """Return what was heard behind a prompt, where a recording begins with it.

    The cut is where the words before it become the prompt's with the fewest edits; of
    several such places, the one nearest to the prompt's number of words.
    """
    said = normalise(prompt).split()
    written = heard.split()
    words = [(w, n) for n, text in enumerate(written) for w in normalise(text).split()]
    # Edits from the first words of the prompt to the first k of what was heard.
    edits = list(range(len(words) + 1))
    for count, wanted in enumerate(said, start=1):
        row = [count]
        for k, (word, _) in enumerate(words, start=1):
            row.append(min(edits[k] + 1, row[-1] + 1, edits[k - 1] + (word != wanted)))
        edits = row
    cut = min(range(len(edits)), key=lambda k: (edits[k], abs(k - len(said))))
    return " ".join(written[words[cut][1] :]) if cut < len(words) else ""


Ratings = Mapping[str, Mapping[str, float | None]]


def summarise(
    items: Mapping[str, Heard], ratings: Ratings | None = None, *, seed: int = 0
) -> dict[str, Any]:
    """Pool the items.

    Args:
        items: Utterance id to what was heard.
        ratings: Utterance id to opinion scores by name; None in them where a recording
            is too short to rate, or a rater gave no score.
        seed: Seed of the bootstrap.

    Returns:
        ``gen_ppl``, ``auto_bleu`` (0..1) and ``words``, each with ``value``, ``low``,
        ``high``; ``num_items`` and ``num_empty``, those in which no word was heard;
        with ratings ``ratings``, means by name, and ``num_unrated``, those that lack
        one.

    Raises:
        ValueError: If no word was heard at all.
    """
    rows = [items[key] for key in sorted(items)]
    if not any(row.num_tokens for row in rows):
        raise ValueError(f"no word was heard in {len(rows)} continuations")
    columns = {
        name: np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("nats", "num_tokens", "num_words", "num_ngrams", "num_repeated")
    }

    def interval(numerator: str, denominator: np.ndarray) -> dict[str, float | None]:
        if not denominator.sum():
            return {"value": None, "low": None, "high": None}
        data = RatioData(columns[numerator], denominator)
        if len(rows) == 1:
            return {"value": data.ratio, "low": None, "high": None}
        found = ratio_interval(data, seed=seed)
        return {"value": found.value, "low": found.low, "high": found.high}

    nats = interval("nats", columns["num_tokens"])
    ones = np.ones(len(rows))
    facts = {
        "gen_ppl": {k: None if v is None else math.exp(v) for k, v in nats.items()},
        "auto_bleu": interval("num_repeated", columns["num_ngrams"]),
        "words": interval("num_words", ones),
        "num_items": len(rows),
        "num_empty": sum(row.num_words == 0 for row in rows),
    }
    if ratings is not None:
        facts |= _mean_ratings(ratings, seed)
    return facts


def _mean_ratings(ratings: Ratings, seed: int) -> dict[str, Any]:
    rows = [ratings[key] for key in sorted(ratings)]
    names = dict.fromkeys(name for row in rows for name in row)
    means: dict[str, dict[str, float | None]] = {}
    for name in names:
        values = np.array([row[name] for row in rows if row[name] is not None])
        means[name] = {"value": None, "low": None, "high": None}
        if len(values):
            found = mean_interval(values, seed=seed)
            means[name] = {"value": found.value, "low": found.low, "high": found.high}
    unrated = sum(None in row.values() for row in rows)
    return {"ratings": means, "num_unrated": unrated}


def item_rows(
    items: Mapping[str, Heard], ratings: Ratings | None = None
) -> list[dict[str, Any]]:
    """Return the items as JSON knows them, by id."""
    ratings = ratings or {}
    return [
        {"key": key, **asdict(items[key]), **ratings.get(key, {})}
        for key in sorted(items)
    ]
