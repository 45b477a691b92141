"""Recordings longer than Whisper's window: cut at words, with context, and joined.

Every word is kept from exactly one window; the words in front of and behind the kept
ones are encoded with them, so that no word is heard without its surroundings.

Symbols: W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from espnet_taste.words import spelling

WINDOW_S = 30.0
CONTEXT_S = 3.0


@dataclass(frozen=True)
class Window:
    """A stretch of words that is encoded at once."""

    first: int  # first word that is encoded
    start: int  # first word that is kept
    stop: int  # one past the last word that is kept
    last: int  # one past the last word that is encoded
    span_s: tuple[float, float]  # audio that is encoded


def plan_windows(
    times: np.ndarray,
    duration_s: float,
    *,
    window_s: float = WINDOW_S,
    context_s: float = CONTEXT_S,
) -> list[Window]:
    """Divide words over windows.

    Args:
        times: Start and end of every word in s, (W, 2), in order, W > 0.
        duration_s: Length of the recording in s.
        window_s: Longest stretch that can be encoded, in s.
        context_s: Speech that is encoded but not kept, on either side, in s.

    Returns:
        Windows whose kept words are all words once, in order.

    Raises:
        ValueError: If a single word is longer than a window.
    """
    starts, ends = times[:, 0], times[:, 1]
    windows, start = [], 0
    while start < len(times):
        first = int(np.searchsorted(starts, starts[start] - context_s, side="left"))
        begin_s = 0.0 if first == 0 else float(starts[first])
        begin_s = max(begin_s, float(starts[start]) - context_s)
        if duration_s - begin_s <= window_s:
            stop = last = len(times)
            end_s = duration_s
        else:
            limit_s = begin_s + window_s
            stop = int(np.searchsorted(ends, limit_s - context_s, side="right"))
            last = int(np.searchsorted(ends, limit_s, side="right"))
            stop = max(stop, min(start + 1, last))
            end_s = limit_s if last == len(times) else float(starts[last])
            end_s = min(end_s, limit_s)
        if stop <= start:
            raise ValueError(
                f"word {start} lasts from {starts[start]:.1f} to {ends[start]:.1f} s, "
                f"longer than a window of {window_s:g} s; is this its transcript?"
            )
        windows.append(Window(first, start, stop, last, (begin_s, end_s)))
        start = stop
    return windows


def carry_times(
    words: Sequence[str],
    heard: Sequence[str],
    times: np.ndarray,
    duration_s: float,
) -> np.ndarray:
    """Give words of a transcript the times of what a recogniser heard.

    Words that both have in common keep the recogniser's times; those between share
    the time between their neighbours evenly.

    Args:
        words: Words of the transcript, W > 0.
        heard: Words of the recogniser.
        times: Their start and end in s, (len(heard), 2).
        duration_s: Length of the recording in s.

    Returns:
        Start and end of the transcript's words in s, (W, 2), float32.
    """
    plain = [spelling(word) for word in words]
    matcher = SequenceMatcher(None, plain, [spelling(w) for w in heard], autojunk=False)
    known = np.full((len(words), 2), np.nan)
    for block in matcher.get_matching_blocks():
        known[block.a : block.a + block.size] = times[block.b : block.b + block.size]
    anchors = np.flatnonzero(~np.isnan(known[:, 0]))
    edges = [-1, *anchors.tolist(), len(words)]
    for left, right in zip(edges, edges[1:]):
        begin_s = 0.0 if left < 0 else known[left, 1]
        end_s = duration_s if right == len(words) else known[right, 0]
        steps = np.linspace(begin_s, end_s, right - left)
        known[left + 1 : right] = np.stack([steps[:-1], steps[1:]], axis=1)
    return known.astype(np.float32)
