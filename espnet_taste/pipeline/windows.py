"""Recordings longer than Whisper's window: cut at words, with context, and joined.

Every word is kept from exactly one window; the words in front of and behind the kept
ones are encoded with them, so that no word is heard without its surroundings.

Symbols: W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

import numpy as np

from espnet_taste.words import spelling

WINDOW_S = 30.0
CONTEXT_S = 3.0
MIN_WORD_S = 0.05  # less than this no word lasts
MAX_WORD_S = 2.0  # an unheard word beside a long pause; the rest is the pause


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
    tokens: np.ndarray | None = None,
    max_tokens: int | None = None,
) -> list[Window]:
    """Divide words over windows.

    Args:
        times: Start and end of every word in s, (W, 2), in order, W > 0.
        duration_s: Length of the recording in s.
        window_s: Longest stretch that can be encoded, in s.
        context_s: Speech that is encoded but not kept, on either side, in s.
        tokens: Number of tokens of every word, (W,), to hold ``max_tokens``.
        max_tokens: Most tokens of a window; None for any number. A word that has more
            is alone in its window.

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
    if tokens is None or max_tokens is None:
        return windows
    before = np.concatenate([[0], np.cumsum(tokens)])
    return [
        part
        for window in windows
        for part in _halved(window, times, context_s, before, max_tokens)
    ]


def _halved(
    window: Window,
    times: np.ndarray,
    context_s: float,
    before: np.ndarray,
    max_tokens: int,
) -> list[Window]:
    """Divide a window of too many tokens, those in front of every word given.

    A second of English has some 4 tokens, but one of Chinese 9, of Hindi 14, of Thai
    20, of Burmese 40: in 30 s there may be more than Whisper takes.
    """
    if before[window.last] - before[window.first] <= max_tokens:
        return [window]
    if window.stop - window.start == 1:
        return [replace(window, first=window.start, last=window.stop)]
    middle = (window.start + window.stop) // 2
    parts = []
    for start, stop in ((window.start, middle), (middle, window.stop)):
        begin_s = max(window.span_s[0], float(times[start, 0]) - context_s)
        end_s = min(window.span_s[1], float(times[stop - 1, 1]) + context_s)
        first = max(window.first, int(np.searchsorted(times[:, 0], begin_s)))
        last = int(np.searchsorted(times[:, 1], end_s, side="right"))
        part = Window(
            min(first, start),
            start,
            stop,
            max(min(window.last, last), stop),
            (begin_s, end_s),
        )
        parts += _halved(part, times, context_s, before, max_tokens)
    return parts


def carry_times(
    words: Sequence[str],
    heard: Sequence[str],
    times: np.ndarray,
    duration_s: float,
) -> np.ndarray:
    """Give words of a transcript the times of what a recogniser heard.

    Words that both have in common keep the recogniser's times. Those between share
    evenly the time of what was heard in their place, so that a misheard word does not
    last through the pause beside it, up to ``MAX_WORD_S`` each, should the transcript
    leave out what is said beside it; where nothing was, the time between their
    neighbours (behind the first of them, up to ``MAX_WORD_S`` each), and where there is
    none, that of a neighbour.

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
    for kind, start, stop, first, last in matcher.get_opcodes():
        if kind == "equal":
            known[start:stop] = times[first:last]
        elif kind == "replace":
            longest_s = MAX_WORD_S * (stop - start)
            end_s = min(times[last - 1, 1], times[first, 0] + longest_s)
            _share(known[start:stop], times[first, 0], end_s)
    for start, stop in _gaps(known):
        begin_s = known[start - 1, 1] if start else 0.0
        end_s = known[stop, 0] if stop < len(words) else duration_s
        longest_s = MAX_WORD_S * (stop - start)
        if start:
            end_s = min(end_s, begin_s + longest_s)
        elif stop < len(words):
            begin_s = max(begin_s, end_s - longest_s)
        if start and end_s - begin_s < MIN_WORD_S * (stop - start):
            start, begin_s = start - 1, known[start - 1, 0]
        elif stop < len(words) and end_s - begin_s < MIN_WORD_S * (stop - start):
            stop, end_s = stop + 1, known[stop, 1]
        _share(known[start:stop], begin_s, end_s)
    return known.astype(np.float32)


def _gaps(known: np.ndarray) -> list[tuple[int, int]]:
    """Return the stretches of words without times, as start and stop."""
    is_unknown = np.isnan(known[:, 0]).astype(int)
    edges = np.flatnonzero(np.diff(is_unknown, prepend=0, append=0))
    return [(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]


def _share(times: np.ndarray, begin_s: float, end_s: float) -> None:
    """Give words, (W, 2), equal parts of a stretch, in place."""
    steps = np.linspace(begin_s, end_s, len(times) + 1)
    times[:] = np.stack([steps[:-1], steps[1:]], axis=1)
