"""One number for one item from the log-likelihoods of its tokens and codes.

Models and papers sum them up in ways of their own, and scores of different ways cannot
be compared. So the likelihoods are kept by token and by word, and the way has a name
that stands in every result:

* ``sum``: everything added up. Longer items are less likely.
* ``mean``: the sum by the number of predicted things, tokens and codes alike.
* ``taste``: the mean of every stream (text, each codebook), added up.
* ``text_only``, ``speech_only``: the same of the text, or of the codes.
* ``released``: minus the released model's loss, of a latent alone: half the mean of the
  text, half that of the loss that latents are trained by.
* ``localised``: ``taste`` of the words within a window after a moment, e.g. a speaker
  switch, each by its middle: where a word begins is an estimate, which may lie a
  little before the moment. Codes of what comes before were made in one pass with what
  follows, so they may know of it.

``normalised`` takes off what the item is worth without its condition. The end symbol
that a model with ``end_of_text`` learns is in none of them: an item need not be all
that was said.

Symbols: T tokens, W words, S streams of codes.

Source: SALMon (arXiv:2409.07437) adds up; the released script of TASTE
(arXiv:2504.07053) takes means of streams.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ItemLikelihood:
    """Log-likelihoods of one item in nats.

    Raises:
        ValueError: If shapes disagree or a number is not finite.
    """

    tokens: np.ndarray  # (T,) float64
    token_words: np.ndarray  # (T,) int64, word of every token
    codes: np.ndarray  # (W, S) float64
    latent_losses: np.ndarray | None = None  # (W,) float64; None without a latent

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        if self.tokens.shape != self.token_words.shape or self.codes.ndim != 2:
            raise ValueError(
                f"log-likelihoods of tokens {self.tokens.shape} with words "
                f"{self.token_words.shape} and of codes {self.codes.shape} do not "
                "belong together; expected (T,), (T,) and (W, S)"
            )
        if len(self.tokens) == 0 or self.token_words[-1] + 1 != len(self.codes):
            raise ValueError(
                f"{len(self.tokens)} tokens with {len(self.codes)} rows of codes: an "
                "item needs at least one word, and a row of codes for every word"
            )
        losses = self.latent_losses
        if losses is not None and losses.shape != self.codes.shape[:1]:
            raise ValueError(
                f"{losses.shape} losses of latents, expected one a word, "
                f"{self.codes.shape[:1]}"
            )
        parts = [self.tokens, self.codes, *([] if losses is None else [losses])]
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError("a log-likelihood is not a finite number")

    def words(self, first: int, stop: int) -> "ItemLikelihood":
        """Return the words from ``first`` up to ``stop``, at least one."""
        kept = (self.token_words >= first) & (self.token_words < stop)
        losses = self.latent_losses
        return ItemLikelihood(
            self.tokens[kept],
            self.token_words[kept] - first,
            self.codes[first:stop],
            None if losses is None else losses[first:stop],
        )


def by_sum(item: ItemLikelihood) -> float:
    """Add everything up."""
    return float(item.tokens.sum() + item.codes.sum())


def by_mean(item: ItemLikelihood) -> float:
    """Divide the sum by the number of tokens and codes."""
    return by_sum(item) / (item.tokens.size + item.codes.size)


def by_text(item: ItemLikelihood) -> float:
    """Return the mean over the tokens."""
    return float(item.tokens.mean())


def by_speech(item: ItemLikelihood) -> float:
    """Return the mean over the words, added up over the streams of codes."""
    return float(item.codes.mean(0).sum())


def by_streams(item: ItemLikelihood) -> float:
    """Add up the means of all streams, as StreamAlign does."""
    return by_text(item) + by_speech(item)


def as_released(item: ItemLikelihood) -> float:
    """Return minus the loss by which the released model compares utterances.

    Raises:
        ValueError: If the codes were not predicted as a latent.
    """
    if item.latent_losses is None:
        raise ValueError("'released' is of a latent, and these codes are none")
    return 0.5 * by_text(item) - 0.5 * float(item.latent_losses.mean())


CONVENTIONS: dict[str, Callable[[ItemLikelihood], float]] = {
    "sum": by_sum,
    "mean": by_mean,
    "taste": by_streams,
    "text_only": by_text,
    "speech_only": by_speech,
}
# Further ones of items whose codes are predicted as a latent.
OF_A_LATENT: dict[str, Callable[[ItemLikelihood], float]] = {"released": as_released}


def words_within(times: np.ndarray, from_s: float, window_s: float) -> np.ndarray:
    """Find the words whose middle lies in a window: the one rule of who is in it.

    Args:
        times: Start and end of every word in s, (W, 2).
        from_s: Where the window begins, in s.
        window_s: Its length in s; its end is outside.

    Returns:
        Word indices, int64.
    """
    since = times.mean(1) - from_s
    return np.flatnonzero((since >= 0) & (since < window_s))


def localised(
    item: ItemLikelihood,
    word_times: np.ndarray,
    from_s: float,
    window_s: float = float("inf"),
    convention: str = "taste",
) -> float:
    """Score what is said after a moment.

    Args:
        item: Log-likelihoods, in the context of all that comes before.
        word_times: Start and end of every word in s, (W, 2).
        from_s: The moment, in s.
        window_s: Seconds after it that count.
        convention: A name in ``CONVENTIONS``.

    Raises:
        ValueError: If times are missing or no word lies in the window.
    """
    if word_times.shape != (len(item.codes), 2):
        raise ValueError(
            f"{len(item.codes)} words but times of shape {word_times.shape}"
        )
    inside = words_within(word_times, from_s, window_s)
    if len(inside) == 0:
        raise ValueError(
            f"no word is said within {window_s:g} s after {from_s:g} s; the last one "
            f"begins at {word_times[-1, 0]:.2f} s"
        )
    part = item.words(int(inside[0]), int(inside[-1]) + 1)
    return CONVENTIONS[convention](part)


def normalised(
    item: ItemLikelihood, unconditional: ItemLikelihood, convention: str = "taste"
) -> float:
    """Return the score less that of the same words without their condition.

    Args:
        item: Log-likelihoods with the condition, e.g. after a prompt; the prompt's own
            words are cut off.
        unconditional: The same words and codes by themselves.
        convention: A name in ``CONVENTIONS``.

    Raises:
        ValueError: If they are not of the same tokens.
    """
    if not np.array_equal(item.token_words, unconditional.token_words):
        raise ValueError(
            f"{len(item.tokens)} tokens of {len(item.codes)} words against "
            f"{len(unconditional.tokens)} of {len(unconditional.codes)}: not one text"
        )
    score = CONVENTIONS[convention]
    return score(item) - score(unconditional)
