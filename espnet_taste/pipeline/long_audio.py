"""Words and times of recordings of any length, window by window.

Every window begins where the last word that was kept of the one before ends, so no
word is heard in two windows. Words near the end of a window may be cut off and are left
to the next; so is its last word in any case, because what a recogniser did not write
down behind it counts as its length.
"""

from collections.abc import Callable

import numpy as np

from espnet_taste.types import SAMPLE_RATE_HZ

# Whisper hears 30 s, but may stop at the first full stop (12 of 88 words) when they
# are full of speech; with some silence behind it, it goes on to the end.
WINDOW_S = 25.0
# A word that ends so near the end of a window may go on behind it.
DOUBT_S = 1.0
MIN_STEP_S = 1.0  # every window begins so much later than the one before

Hear = Callable[[np.ndarray], tuple[list[str], np.ndarray]]


def hear_long(wave: np.ndarray, hear: Hear) -> tuple[list[str], np.ndarray]:
    """Transcribe a recording.

    Args:
        wave: The recording, (N,), 16 kHz.
        hear: Returns words and their start and end in s, (W, 2), of up to ``WINDOW_S``.

    Returns:
        Words and their start and end in s, (W, 2), float32; W may be 0.
    """
    size = round(WINDOW_S * SAMPLE_RATE_HZ)
    words: list[str] = []
    times: list[np.ndarray] = []
    start = 0
    while start < len(wave):
        piece = wave[start : start + size]
        found, found_times = hear(piece)
        if start + size < len(wave):
            certain = found_times[:, 1] <= WINDOW_S - DOUBT_S
            count = max(min(int(np.cumprod(certain).sum()), len(found) - 1), 0)
            step_s = WINDOW_S - DOUBT_S  # past a window without words, e.g. music
            if count:
                step_s = min(step_s, float(found_times[count - 1, 1]))
            elif len(found) and found_times[0, 0] >= MIN_STEP_S:
                step_s = float(found_times[0, 0])
            else:  # one word that does not end is kept, or it would come for ever
                count = min(len(found), 1)
            found, found_times = found[:count], found_times[:count]
        else:
            step_s = WINDOW_S
        words += found
        times.append(found_times + start / SAMPLE_RATE_HZ)
        start += round(max(step_s, MIN_STEP_S) * SAMPLE_RATE_HZ)
    return words, np.concatenate(times).astype(np.float32)
