"""Edits in the space of the codebooks: between two deliveries, slower, faster.

    edit = interpolate(calm, excited, 0.5, tokenizer)
    edit = retime(tokens, (2, 5), 1.3, tokenizer, examples=corpus)

A word's codes stand for a vector, the sum of their entries. Vectors are moved and coded
again, so that the codes of the result exist. Coding is greedy and not idempotent, so
words that are not to move keep their codes untouched. Tokens without codes are moved by
their embeddings, and nothing is coded.

Symbols: W words, Q codebooks, D TASTE width, d width of the vectors, N example words.

Source: TASTE (arXiv:2504.07053), text-aligned speech editing; neither edit is in the
paper.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from espnet_taste.pipeline.editing import (
    DRAWN_ANEW,
    NO_TIMES,
    OTHER_VOICE,
    Edit,
    check_words,
    edited,
    require_alike,
    require_same_text,
    rows_taken,
)
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens, listed, require_same_tokenizer

# Fewer words say nothing about how codes and durations go together.
MIN_EXAMPLES = 10
# Words are left out one by one up to so many, in so many groups beyond.
MAX_GROUPS = 50


@dataclass(frozen=True)
class Pace:
    """The direction in which example words are longer than their letters explain.

    One component of partial least squares of log durations on vectors.
    """

    mean: np.ndarray  # (d,)
    direction: np.ndarray  # (d,), of length 1
    slope: float  # log duration for a step of 1 along the direction, > 0
    low: float  # range of the examples along the direction
    high: float
    agreement: float  # correlation of durations and those told without the word itself
    num_words: int  # N

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """Return where vectors lie along the direction, (W, d) -> (W,)."""
        return (vectors - self.mean) @ self.direction


def interpolate(
    first: TasteTokens,
    second: TasteTokens,
    share: float,
    tokenizer: TasteTokenizer,
    words: Iterable[int] | None = None,
) -> Edit:
    """Speak words between two deliveries of the same text.

    Args:
        first: An utterance; its speaker is kept.
        second: Another one with the same words.
        share: 0 for the first's delivery, 1 for the second's. At both ends, and for
            words whose codes are the same in both, the codes are taken as they are;
            coding their vectors again might give others.
        tokenizer: What made the tokens.
        words: Words to move, from 0; None for all.

    Raises:
        ValueError: If ``share`` is not in 0..1, the texts differ, a word is not there,
            or the tokens are of another tokenizer.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in 0..1, got {share}")
    require_same_text(first, second)
    require_alike(first, second, "interpolate with")
    require_same_tokenizer(first, tokenizer.models, "interpolate")
    chosen = check_words(first, range(len(first)) if words is None else words)
    if share in (0, 1):
        taken = chosen if share else ()
        parts = rows_taken(first, taken, second, taken)
        exact = f"A share of {share:g} takes codes as they are; nothing was mixed."
        changed = _differing(first, parts)
        return edited(first, parts, changed, (exact, OTHER_VOICE, DRAWN_ANEW, NO_TIMES))
    here, there = vectors_of(first, tokenizer), vectors_of(second, tokenizer)
    mixed = (1 - share) * here + share * there
    apart = np.linalg.norm(there - here, axis=1)
    moving = [word for word in chosen if apart[word] > 0]
    parts = _coded(first, mixed, moving, tokenizer)
    changed = _differing(first, parts)
    caveats = [
        "Half way between two vectors need not sound half way between two deliveries."
    ]
    if first.codes is not None and moving:
        missed = np.linalg.norm(_vectors(parts["codes"], tokenizer) - mixed, axis=1)
        ratio = float((missed[moving] / apart[moving]).mean())
        caveats.append(
            f"The codes that exist miss the mixed vectors by {ratio:.0%} of the "
            "distance between the two deliveries, on average."
        )
    return edited(first, parts, changed, (*caveats, OTHER_VOICE, DRAWN_ANEW, NO_TIMES))


def retime(
    tokens: TasteTokens,
    span: tuple[int, int],
    factor: float,
    tokenizer: TasteTokenizer,
    examples: Iterable[TasteTokens] | None = None,
) -> Edit:
    """Move the codes of a span towards those of words that last longer or shorter.

    TASTE holds no durations: a word has one row of codes and the decoder chooses how
    many units it lasts. So this is a wish, not a setting. The direction comes from
    examples with word times; words are moved no further than examples go. Where there
    is a slower or faster recording of the same text, ``interpolate`` towards it is the
    safer way.

    Args:
        tokens: The utterance to edit.
        span: First word, and one past the last.
        factor: Wanted duration over the present one, > 0 and not 1.
        tokenizer: What made the tokens.
        examples: Utterances with word times; None for the utterance itself. Speech of
            the same speaker, hundreds of words, is best.

    Raises:
        ValueError: If the span or the factor is out of range; if the tokens are of
            another tokenizer; if examples have no times or fewer than MIN_EXAMPLES
            words; or if their codes do not tell how long words are.
    """
    if not (math.isfinite(factor) and factor > 0 and factor != 1):
        raise ValueError(f"factor must be above 0 and not 1, got {factor}")
    require_same_tokenizer(tokens, tokenizer.models, "retime")
    chosen = list(check_words(tokens, range(*span)))
    pace = learn_pace([tokens] if examples is None else examples, tokenizer)
    vectors = vectors_of(tokens, tokenizer)
    before = pace.place(vectors)
    # What lies outside of the examples already is not moved further out, nor back.
    low, high = np.minimum(pace.low, before), np.maximum(pace.high, before)
    after = (before + math.log(factor) / pace.slope).clip(low, high)
    wanted = vectors + (after - before)[:, None] * pace.direction
    parts = _coded(tokens, wanted, chosen, tokenizer)
    reached = _place_of(parts, pace, tokenizer)
    # Coding may undo a short step, or turn it round.
    turned = (reached - before) * math.log(factor) <= 0
    kept = [word for word in chosen if not turned[word]]
    parts = _coded(tokens, wanted, kept, tokenizer)
    steps = (_place_of(parts, pace, tokenizer) - before)[chosen]
    likely = math.exp(pace.slope * float(steps.mean()))
    caveats = (
        f"TASTE holds no durations. {len(kept)} of {len(chosen)} words were moved to "
        f"where {pace.num_words} example words are longer or shorter; codes and "
        f"durations of these agree with a correlation of {pace.agreement:.2f}.",
        f"A factor of {factor:g} was asked for; the codes that exist, within what the "
        f"examples show, suggest {likely:.2f}.",
        "Pitch and stress go with duration in speech, and may move along.",
        DRAWN_ANEW,
        NO_TIMES,
    )
    return edited(tokens, parts, _differing(tokens, parts), caveats)


def learn_pace(examples: Iterable[TasteTokens], tokenizer: TasteTokenizer) -> Pace:
    """Learn how codes and durations of words go together.

    Durations are taken as logarithms, after what the number of letters explains.

    Args:
        examples: Utterances with word times.
        tokenizer: What made them.

    Raises:
        ValueError: As in ``retime``.
    """
    examples, _ = listed(examples)  # read more than once
    for tokens in examples:
        require_same_tokenizer(tokens, tokenizer.models, "learn durations from")
        if tokens.times is None:
            raise ValueError(
                f"'{tokens.text[:40]}' has no word times to learn durations from; "
                "encode it with word_times=True"
            )
    num_words = sum(map(len, examples))
    if num_words < MIN_EXAMPLES:
        raise ValueError(
            f"{num_words} words are too few to learn durations from, at least "
            f"{MIN_EXAMPLES} are needed; give more utterances as examples"
        )
    vectors = np.concatenate([vectors_of(tokens, tokenizer) for tokens in examples])
    excess = _excess([w for tokens in examples for w in tokens.words], examples)
    agreement = _agreement(vectors, excess)
    if agreement <= 0:
        raise ValueError(
            f"the codes of {num_words} example words do not tell how long the words "
            f"are (correlation {agreement:.2f}); give more or other examples"
        )
    mean, direction, slope = _component(vectors, excess)
    places = (vectors - mean) @ direction
    ends = float(places.min()), float(places.max())
    return Pace(mean, direction, slope, *ends, agreement, num_words)


def vectors_of(tokens: TasteTokens, tokenizer: TasteTokenizer) -> np.ndarray:
    """Return the vectors of words: sums of entries, or embeddings where no codes are.

    Returns:
        (W, d) or (W, D), float64.

    Raises:
        ValueError: If codes are outside the tokenizer's codebooks.
    """
    if tokens.codes is None:
        return tokens.embeds.astype(np.float64)
    tokenizer.embed(tokens.codes)  # refuses codes of another size
    return _vectors(tokens.codes, tokenizer)


@torch.no_grad()
def _vectors(codes: np.ndarray, tokenizer: TasteTokenizer) -> np.ndarray:
    rows = torch.from_numpy(np.ascontiguousarray(codes)).to(tokenizer.device)
    return tokenizer.model.quantizer.sum_codes(rows).cpu().double().numpy()


def _coded(
    tokens: TasteTokens,
    vectors: np.ndarray,
    words: Sequence[int],
    tokenizer: TasteTokenizer,
) -> dict[str, np.ndarray | None]:
    """Return the rows of tokens, those of some words made from vectors (W, d)."""
    words = list(words)
    embeds = None if tokens.embeds is None else tokens.embeds.copy()
    if tokens.codes is None:
        embeds[words] = vectors[words]
        return {"embeds": embeds}
    codes = tokens.codes.copy()
    if words:
        wanted = torch.from_numpy(vectors[words]).float().to(tokenizer.device)
        codes[words] = tokenizer.model.quantizer.quantize_latent(wanted).cpu().numpy()
        if embeds is not None:
            embeds[words] = tokenizer.embed(codes[words])
    return {"codes": codes, "embeds": embeds}


def _differing(
    tokens: TasteTokens, parts: dict[str, np.ndarray | None]
) -> tuple[int, ...]:
    """Return the words whose codes, or embeddings if there are none, are new."""
    name = "embeds" if tokens.codes is None else "codes"
    rows = np.any(getattr(tokens, name) != parts[name], axis=1)
    return tuple(np.flatnonzero(rows).tolist())


def _place_of(
    parts: dict[str, np.ndarray | None], pace: Pace, tokenizer: TasteTokenizer
) -> np.ndarray:
    codes = parts.get("codes")
    if codes is None:
        return pace.place(parts["embeds"].astype(np.float64))
    return pace.place(_vectors(codes, tokenizer))


def _excess(words: Sequence[str], examples: Sequence[TasteTokens]) -> np.ndarray:
    """Return log durations beyond what letters explain, (N,), of mean 0."""
    times = np.concatenate([tokens.times for tokens in examples]).astype(np.float64)
    seconds = np.log((times[:, 1] - times[:, 0]).clip(1e-3))
    letters = np.log([max(1, sum(c.isalnum() for c in word)) for word in words])
    letters = letters - letters.mean()
    spread = float(letters @ letters)
    share = float(letters @ seconds) / spread if spread else 0.0
    return seconds - seconds.mean() - share * letters


def _component(
    vectors: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return mean, direction and slope of one component of partial least squares.

    The direction is 0 where vectors and values do not go together at all.
    """
    mean = vectors.mean(0)
    centred, target = vectors - mean, values - values.mean()
    direction = centred.T @ target
    length = float(np.linalg.norm(direction))
    if length == 0:
        return mean, direction, 0.0
    direction = direction / length
    places = centred @ direction
    return mean, direction, float(places @ target / (places @ places))


def _agreement(vectors: np.ndarray, values: np.ndarray) -> float:
    """Return how well words that were left out are told by the others, -1..1."""
    group = np.arange(len(values)) % MAX_GROUPS
    told = np.zeros(len(values))
    for number in np.unique(group):
        out = group == number
        mean, direction, slope = _component(vectors[~out], values[~out])
        told[out] = values[~out].mean() + slope * ((vectors[out] - mean) @ direction)
    if min(told.std(), values.std()) < 1e-9:  # rounding errors would be compared
        return 0.0
    return float(np.corrcoef(told, values)[0, 1])
