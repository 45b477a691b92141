"""Which words of an utterance are scored, in the light of which others.

Symbols: W words.
"""

from dataclasses import dataclass, replace

import numpy as np

from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.slm.conventions import (
    CONVENTIONS,
    OF_A_LATENT,
    ItemLikelihood,
    localised,
    normalised,
    words_within,
)

# What an item is scored by beside ``CONVENTIONS``, if it says what stands before.
OF_A_PART = ("localised", "normalised")


@dataclass(frozen=True)
class ScoredItem:
    """An utterance, and which part of it counts.

    Raises:
        ValueError: If a moment is given for speech with text around it, or the window
            is empty.
    """

    tokens: TasteTokens
    before: str = ""  # text in front, read and not scored
    after: str = ""  # text behind; then it alone is scored
    from_s: float | None = None  # score what is said from this moment on
    window_s: float = float("inf")  # and for how long

    def __post_init__(self) -> None:
        """Check that the parts go together."""
        if self.from_s is not None and (self.before or self.after):
            raise ValueError("a moment is for spoken endings, without text around them")
        if not self.window_s > 0:
            raise ValueError(f"window_s must be above 0, got {self.window_s:g}")

    def alone(self) -> "ScoredItem | None":
        """Return what is scored without what stands before it; None if nothing does.

        What it is worth is what ``normalised`` takes off.
        """
        if self.after:
            return replace(self, tokens=self.tokens[:0], before="")
        if self.before:
            return replace(self, before="")
        if self.from_s is None or self.why_not_localised() is not None:
            return None
        first = int(words_within(self.tokens.times, self.from_s, float("inf"))[0])
        return replace(self, tokens=self.tokens[first:]) if first > 0 else None

    def scores(
        self, found: ItemLikelihood, alone: ItemLikelihood | None = None
    ) -> dict[str, float]:
        """Return the score of every convention by its name.

        Args:
            found: How likely the item is.
            alone: How likely ``alone()`` is, if there should be a ``normalised`` score.

        Returns:
            Scores; without ``localised`` where ``why_not_localised`` has a reason, and
            without ``speech_only`` of a written ending: all would be equally likely.
        """
        conventions = CONVENTIONS
        if found.latent_losses is not None:
            conventions = CONVENTIONS | OF_A_LATENT
        scores = {name: score(found) for name, score in conventions.items()}
        if self.after:
            del scores["speech_only"]
        if self.from_s is not None and self.why_not_localised() is None:
            times = np.asarray(self.tokens.times)
            scores["localised"] = localised(found, times, self.from_s, self.window_s)
        other = self.alone()
        if alone is None or other is None:
            return scores
        if self.from_s is None:
            scores["normalised"] = normalised(found, alone)
        else:
            without = other.scores(alone)["localised"]
            scores["normalised"] = scores["localised"] - without
        return scores

    def why_not_localised(self) -> str | None:
        """Return why no word is known to lie in the window; None if one is."""
        if self.from_s is None:
            return "no moment is given"
        if self.tokens.times is None:
            return "it is not known when its words were said"
        if len(words_within(self.tokens.times, self.from_s, self.window_s)):
            return None
        return f"no word is said within {self.window_s:g} s after {self.from_s:g} s"
