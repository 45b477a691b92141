"""Speech of many words, spoken in stretches.

The unit LM reads what it speaks as one row, and is trained on rows of up to 30 s: a
longer one is beyond what it knows, and its cache grows with every word (20 GB for an
hour). So long tokens are cut, at the ends of sentences where there are any.

Symbols: N samples.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from espnet_taste.pipeline.speech import Speech
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.slm.vocabulary import SENTENCE_ENDS

# Fast speech has some 120 words in 30 s: what is no longer than that is never cut.
MOST_WORDS = 150
_QUOTES = "\"')]\u201d\u2019"


def stretches(tokens: TasteTokens, most_words: int | None) -> list[TasteTokens]:
    """Cut tokens into stretches; joined they are the whole.

    Args:
        tokens: An utterance.
        most_words: Most words of a stretch; None for the utterance as it is.

    Raises:
        ValueError: If ``most_words`` is below 1.
    """
    if most_words is None:
        return [tokens]
    if most_words < 1:
        raise ValueError(f"words_at_once must be at least 1, got {most_words}")
    edges = [0]
    while len(tokens) - edges[-1] > most_words:
        edges.append(_cut_place(tokens.words, edges[-1], most_words))
    stops = [*edges[1:], len(tokens)]
    return [tokens[start:stop] for start, stop in zip(edges, stops, strict=True)]


def _cut_place(words: Sequence[str], start: int, most_words: int) -> int:
    """Return where to cut behind ``start``: where a sentence ends, if one does."""
    longest = start + most_words
    for stop in range(longest, start + most_words // 2, -1):
        if words[stop - 1].rstrip(_QUOTES).endswith(tuple(SENTENCE_ENDS)):
            return stop
    return longest


def join_stretches(parts: Sequence[Speech], counts: Iterable[int]) -> list[Speech]:
    """Put the audio of stretches together again.

    Args:
        parts: Audio of all stretches of all utterances.
        counts: Number of stretches of every utterance.

    Returns:
        One value an utterance: its audio, (N,); the number of its units, added up, and
        what stopped the first stretch that did not come to its end.
    """
    joined, start = [], 0
    for count in counts:
        row = parts[start : start + count]
        start += count
        if count == 1:
            joined += row
            continue
        reasons = [part.facts["stopped_by"] for part in row]
        unusual = [reason for reason in reasons if reason != "end"]
        facts = {
            "num_units": sum(part.facts["num_units"] for part in row),
            "stopped_by": (unusual or reasons)[0],
            "num_stretches": count,
        }
        audio = np.concatenate([part.audio for part in row])
        joined.append(Speech(audio, row[0].sample_rate_hz, facts))
    return joined
