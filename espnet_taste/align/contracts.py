"""What an aligner is, and what every alignment must satisfy."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from espnet_taste.data.audio import ExclusionError

MIN_WORD_S = 0.02  # one Whisper frame; a word must own at least that much time


class AlignmentError(ExclusionError):
    """An utterance that could not be aligned; ``reason`` is what it is counted under.

    Reasons: no_pronunciation, not_aligned, no_alignment, words_differ,
    too_many_words, too_long.
    """


@dataclass(frozen=True)
class WordTimes:
    """Start and end of every word of one utterance."""

    times: np.ndarray  # (W, 2) float32, in s; ordered, inside the audio
    num_moved: int  # words whose times an aligner gave had to be moved to fit


class AbsAligner(ABC):
    """Finds the time of each word; made once, asked for many utterances.

    The result must not depend on the utterances asked for before: jobs and resumed
    runs see them in another order.
    """

    @abstractmethod
    def align(
        self, audio: np.ndarray, words: Sequence[str], *, key: str = ""
    ) -> WordTimes:
        """Align one utterance.

        Args:
            audio: (N,), float32, 16 kHz.
            words: At least one; each has a letter or digit.
            key: Utterance id; an aligner that looks times up needs it.

        Returns:
            The times, as ``fit_times`` leaves them.

        Raises:
            AlignmentError: If there is no alignment to be had.
        """


def fit_times(times: np.ndarray, duration_s: float) -> WordTimes:
    """Move times as little as needed for every word to own MIN_WORD_S.

    Aligners overlap words by a frame, end behind the audio or give a word no time at
    all; what follows (spans of units, pooled frames) needs none of that.

    Args:
        times: Start and end of each word in s, (W, 2), W > 0; starts in order.
        duration_s: Length of the audio in s.

    Returns:
        Times with 0 <= start, start + MIN_WORD_S <= end <= next start, and end <=
        duration (up to float32 rounding).

    Raises:
        AlignmentError: With reason not_aligned if a time is not finite or starts are
            out of order, too_many_words if the audio is too short for the words.
    """
    wanted = np.asarray(times, dtype=np.float64)
    if wanted.ndim != 2 or wanted.shape[1] != 2 or len(wanted) == 0:
        raise ValueError(f"expected times (W, 2) with W > 0, got {wanted.shape}")
    if not np.isfinite(wanted).all():
        raise AlignmentError("not_aligned", "a word time is not finite")
    if (np.diff(wanted[:, 0]) < 0).any():
        word = int(np.argmax(np.diff(wanted[:, 0]) < 0)) + 1
        raise AlignmentError("not_aligned", f"word {word} starts before the one before")
    if len(wanted) * MIN_WORD_S > duration_s:
        raise AlignmentError(
            "too_many_words",
            f"{len(wanted)} words in {duration_s:.3f} s, less than {MIN_WORD_S} s each",
        )
    fitted = wanted.copy()
    # A word that ends behind the next one has a wrong end; left so, it would push all
    # words that it covers behind it.
    room = np.maximum(fitted[:-1, 0] + MIN_WORD_S, fitted[1:, 0])
    covers_next = fitted[:-1, 1] > fitted[1:, 1]
    fitted[:-1, 1] = np.where(covers_next, room, fitted[:-1, 1])
    last = 0.0
    for row in fitted:
        row[0] = max(row[0], last)
        row[1] = last = max(row[1], row[0] + MIN_WORD_S)
    limit = duration_s
    for row in fitted[::-1]:
        row[1] = min(row[1], limit)
        row[0] = limit = min(row[0], row[1] - MIN_WORD_S)
    moved = int((np.abs(fitted - wanted) > 1e-6).any(axis=1).sum())
    # The subtractions above may leave -1e-17 in front of the first word.
    return WordTimes(fitted.clip(0).astype(np.float32), moved)


def uniform_times(num_words: int, duration_s: float) -> WordTimes:
    """Split the audio evenly, for utterances that no aligner can do.

    Raises:
        AlignmentError: With reason too_many_words.
    """
    edges = np.linspace(0, duration_s, num_words + 1)
    return fit_times(np.stack([edges[:-1], edges[1:]], axis=1), duration_s)
