"""Words and times of recordings of any length, window by window.

Every window begins where the last word that was kept of the one before ends, so no
word is heard in two windows. Words near the end of a window may be cut off and are left
to the next; so is its last word in any case, because what a recogniser did not write
down behind it counts as its length.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from espnet_taste.align.contracts import AlignmentError, uniform_times
from espnet_taste.align.transcripts import FULL_S
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import TokenizedWords, word_spans

logger = logging.getLogger(__name__)

# Whisper hears 30 s, but not to the end when they are full of speech (``FULL_S``).
HEARING_S = 25.0
# A word that ends so near the end of a window may go on behind it.
DOUBT_S = 1.0
MIN_STEP_S = 0.5  # every window begins so much later than the one before

Hear = Callable[[np.ndarray], tuple[list[str], np.ndarray]]


def hear_long(wave: np.ndarray, hear: Hear) -> tuple[list[str], np.ndarray]:
    """Transcribe a recording.

    Args:
        wave: The recording, (N,), 16 kHz.
        hear: Returns words and their start and end in s, (W, 2), of ``HEARING_S``.

    Returns:
        Words and their start and end in s, (W, 2), float32; W may be 0.
    """
    size = round(HEARING_S * SAMPLE_RATE_HZ)
    words: list[str] = []
    times: list[np.ndarray] = []
    start = 0
    while start < len(wave):
        piece = wave[start : start + size]
        found, found_times = hear(piece)
        if start + size < len(wave):
            count, step_s = _settled(found_times)
            # A word that is kept must not reach into the next window.
            found, found_times = found[:count], found_times[:count].clip(max=step_s)
        else:
            step_s = HEARING_S
        words += found
        times.append(found_times + start / SAMPLE_RATE_HZ)
        start += round(step_s * SAMPLE_RATE_HZ)
    return words, np.concatenate(times).astype(np.float32)


def crowded(waves: Sequence[np.ndarray], texts: Sequence[str | None]) -> list[int]:
    """Return the recordings without text that Whisper would not hear out at once.

    Args:
        waves: Recordings, each (N,), 16 kHz.
        texts: Their transcripts, if they are known.
    """
    size = FULL_S * SAMPLE_RATE_HZ
    return [
        place
        for place, (wave, text) in enumerate(zip(waves, texts, strict=True))
        if text is None and len(wave) > size
    ]


def without_loops(words: list[str], tokens: TokenizedWords, limit: int) -> list[str]:
    """Leave out the words that only a Whisper writes that repeats itself inside one.

    They would fit into no window, and the whole recording would be lost.

    Args:
        words: What was heard in a window.
        tokens: The same as tokens.
        limit: Tokens that the aggregator takes at once.
    """
    kept = []
    for word, (start, stop) in zip(words, word_spans(tokens.words), strict=True):
        if stop - start <= limit:
            kept.append(word)
        else:
            logger.warning(
                f"left out a word of {stop - start} tokens that Whisper heard in "
                f"{HEARING_S:g} s: '{word[:20]}...'"
            )
    return kept


def spread_words(
    words: list[str], duration_s: float, error: AlignmentError
) -> tuple[list[str], np.ndarray]:
    """Give words that could not be aligned the same time each.

    A whole recording must not be lost for one stretch of it. Words for which there is
    no time at all (Whisper writes a sentence into the last 10 ms) were not heard.
    """
    text = " ".join(words)[:40]
    try:
        times = uniform_times(len(words), duration_s).times
    except AlignmentError:
        logger.warning(f"left out what was heard in {duration_s:.2f} s, '{text}'")
        return [], np.zeros((0, 2), np.float32)
    logger.warning(f"the words of '{text}' are taken to be spread evenly: {error}")
    return words, times


def _settled(times: np.ndarray) -> tuple[int, float]:
    """Return how many words of a window are kept, and when the next window begins.

    Args:
        times: Start and end of the words in s, (W, 2), on the clock of the window.
    """
    longest_s = HEARING_S - DOUBT_S  # past a window without words, e.g. music
    certain = times[:, 1] <= longest_s
    count = max(min(int(np.cumprod(certain).sum()), len(times) - 1), 0)
    if count == 0:
        if len(times) and times[0, 0] >= MIN_STEP_S:
            return 0, float(times[0, 0])
        # One word that does not end is kept, or it would come for ever.
        return min(len(times), 1), longest_s
    if times[count - 1, 1] >= MIN_STEP_S:
        return count, float(times[count - 1, 1])
    # Words that begin before the next window can would be lost. The end of the last
    # one need not be known; so long it may be.
    count = int((times[:, 0] < MIN_STEP_S).sum())
    return count, float(times[count - 1, 1].clip(MIN_STEP_S, 2 * MIN_STEP_S))
