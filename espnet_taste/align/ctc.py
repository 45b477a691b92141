"""Word times from the CTC posteriors of any recogniser.

The recogniser comes as two functions, so that this file knows no toolkit; for ESPnet
models ``espnet_taste.data.espnet_asr`` makes them.
"""

from collections.abc import Callable, Sequence

import numpy as np

from espnet_taste.align.contracts import (
    AbsAligner,
    AlignmentError,
    WordTimes,
    fit_times,
)
from espnet_taste.types import SAMPLE_RATE_HZ


class CtcAligner(AbsAligner):
    """Aligns tokens of words by the best CTC path.

    Args:
        log_probs: Audio (N,) float32 to log posteriors (T, V), evenly spaced frames.
        encode_word: Word to its token ids, as they follow one another in the
            recogniser's training text; empty if it has none of them.
        separator: Token between two words (``<space>`` of character models) or None.
        blank: Id of the CTC blank.
    """

    def __init__(
        self,
        log_probs: Callable[[np.ndarray], np.ndarray],
        encode_word: Callable[[str], list[int]],
        *,
        separator: int | None = None,
        blank: int = 0,
    ):
        self.log_probs = log_probs
        self.encode_word = encode_word
        self.separator = separator
        self.blank = blank

    def align(
        self, audio: np.ndarray, words: Sequence[str], *, key: str = ""
    ) -> WordTimes:
        """Align one utterance; see ``AbsAligner.align``."""
        tokens: list[int] = []
        owners: list[int] = []  # word of each token, -1 between words
        for index, word in enumerate(words):
            pieces = self.encode_word(word)
            if not pieces:
                raise AlignmentError(
                    "no_pronunciation", f"'{word}' has no token of this recogniser"
                )
            if index > 0 and self.separator is not None:
                tokens.append(self.separator)
                owners.append(-1)
            tokens += pieces
            owners += [index] * len(pieces)
        scores = self.log_probs(audio)
        frames = ctc_frames(scores, tokens, self.blank)
        duration_s = len(audio) / SAMPLE_RATE_HZ
        frame_s = duration_s / len(scores)
        rows = np.array(owners)
        times = [
            (frames[rows == word, 0].min(), frames[rows == word, 1].max())
            for word in range(len(words))
        ]
        return fit_times(np.array(times, dtype=np.float64) * frame_s, duration_s)


def ctc_frames(
    log_probs: np.ndarray, tokens: Sequence[int], blank: int = 0
) -> np.ndarray:
    """Find the frames of each token on the most probable CTC path.

    Args:
        log_probs: (T, V), float.
        tokens: Ids, N > 0 of them, none of them the blank.
        blank: Id of the blank.

    Returns:
        First and last-plus-one frame of each token, (N, 2) int64.

    Raises:
        AlignmentError: With reason too_many_words if the frames do not suffice.
    """
    num_frames = len(log_probs)
    labels = np.full(2 * len(tokens) + 1, blank)
    labels[1::2] = tokens
    # A state may be entered from two before it unless that would lose a blank which
    # keeps two equal tokens apart.
    may_skip = np.zeros(len(labels), dtype=bool)
    may_skip[2:] = (labels[2:] != blank) & (labels[2:] != labels[:-2])
    needed = len(tokens) + int((np.diff(np.asarray(tokens)) == 0).sum())
    if needed > num_frames:
        raise AlignmentError(
            "too_many_words", f"{num_frames} frames for {needed} CTC tokens"
        )
    score = np.full(len(labels), -np.inf)
    score[:2] = log_probs[0, labels[:2]]
    moves = np.zeros((num_frames, len(labels)), dtype=np.int8)
    for frame in range(1, num_frames):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(may_skip, np.concatenate([[-np.inf] * 2, score[:-2]]), -np.inf)
        options = np.stack([score, one, two])
        moves[frame] = options.argmax(axis=0)
        score = options.max(axis=0) + log_probs[frame, labels]
    state = len(labels) - 1 if score[-1] >= score[-2] else len(labels) - 2
    path = np.empty(num_frames, dtype=np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= moves[frame, state]
    spans = [np.flatnonzero(path == 2 * token + 1) for token in range(len(tokens))]
    return np.array([(span[0], span[-1] + 1) for span in spans], dtype=np.int64)
