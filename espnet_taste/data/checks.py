"""What makes an utterance usable: limits on its audio and on its transcript."""

from dataclasses import dataclass

import numpy as np

from espnet_taste.data.audio import AudioError
from espnet_taste.data.exclusions import ExclusionError
from espnet_taste.words import space_signs, split_words


class TranscriptError(ExclusionError):
    """A transcript that cannot be used; ``reason`` is the name it is counted under."""


@dataclass(frozen=True)
class Limits:
    """Bounds on an utterance; outside of them it is left out and counted."""

    min_s: float = 0.1  # shortest audio
    max_s: float = 30.0  # longest audio; Whisper hears 30 s
    min_peak: float = 0.001  # largest deviation from the mean; below it is silence
    max_words: int = 200  # Whisper's decoder has 448 places

    def __post_init__(self) -> None:
        """Refuse limits that nothing can satisfy.

        Raises:
            ValueError: If a bound is negative or the shortest is above the longest.
        """
        if not 0 <= self.min_s <= self.max_s:
            raise ValueError(
                f"expected 0 <= min_s <= max_s, got {self.min_s} and {self.max_s}"
            )
        if self.min_peak < 0 or self.max_words < 1:
            raise ValueError(
                f"expected min_peak >= 0 and max_words >= 1, got {self.min_peak} and "
                f"{self.max_words}"
            )


def check_audio(samples: np.ndarray, sample_rate_hz: int, limits: Limits) -> None:
    """Check length and loudness.

    Args:
        samples: (N,), float, finite.
        sample_rate_hz: Samples a second.
        limits: The bounds.

    Raises:
        AudioError: With reason too_short, too_long or silent.
    """
    duration_s = len(samples) / sample_rate_hz
    if duration_s < limits.min_s:
        raise AudioError(
            "too_short", f"{duration_s:.4f} s, shorter than {limits.min_s:g} s"
        )
    if duration_s > limits.max_s:
        raise AudioError(
            "too_long", f"{duration_s:.2f} s, longer than {limits.max_s:g} s"
        )
    # From the mean: a constant offset is no sound.
    peak = float(np.abs(samples - samples.mean()).max())
    if peak < limits.min_peak:
        raise AudioError("silent", f"peak {peak:.1e}, below {limits.min_peak:g}")


def check_transcript(text: str | None, limits: Limits) -> None:
    """Check that there are words somebody can have said.

    Args:
        text: The transcript; None if there is none.
        limits: The bounds.

    Raises:
        TranscriptError: With reason no_transcript, no_speakable_word or
            too_many_words.
    """
    # By the word rule of those who encode it: unspaced scripts have a word a sign.
    words = split_words(space_signs(text or ""))
    if not words:
        raise TranscriptError(
            "no_transcript", "not in text" if text is None else "empty in text"
        )
    if not any(is_speakable(word) for word in words):
        raise TranscriptError("no_speakable_word", f"no letter or digit in {text!r}")
    if len(words) > limits.max_words:
        raise TranscriptError(
            "too_many_words", f"{len(words)} words, more than {limits.max_words}"
        )


def is_speakable(word: str) -> bool:
    """Tell whether a word has a letter or digit of any script."""
    return any(character.isalnum() for character in word)
