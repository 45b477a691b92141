"""CTC alignment against all paths, and the words made of it."""

import itertools

import numpy as np
import pytest

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.align.ctc import CtcAligner, ctc_frames


def collapse(path, blank=0):
    return [t for t, _ in itertools.groupby(path) if t != blank]


def best_score(log_probs, tokens):
    frames = range(len(log_probs))
    return max(
        sum(log_probs[frame, token] for frame, token in zip(frames, path, strict=True))
        for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs))
        if collapse(path) == list(tokens)
    )


@pytest.mark.parametrize("tokens", [[1], [1, 2], [1, 1], [2, 1, 1], [1, 2, 1]])
def test_the_path_is_the_most_probable_of_all(tokens):
    draw = np.random.default_rng(len(tokens))
    for _ in range(10):
        log_probs = np.log(draw.dirichlet(np.ones(3), size=6))
        spans = ctc_frames(log_probs, tokens)

        path = np.zeros(6, dtype=int)
        for token, (start, end) in zip(tokens, spans, strict=True):
            path[start:end] = token
        assert collapse(path) == tokens
        score = log_probs[np.arange(6), path].sum()
        np.testing.assert_allclose(score, best_score(log_probs, tokens))


def test_too_few_frames_are_told():
    log_probs = np.log(np.full((3, 3), 1 / 3))

    assert len(ctc_frames(log_probs, [1, 2, 1])) == 3
    with pytest.raises(AlignmentError, match="3 frames for 4 CTC tokens"):
        ctc_frames(log_probs, [1, 1, 2])


VOCABULARY = "-abc "


def posteriors(text):
    """Sharp log posteriors that spell ``text``, one character a frame, - blank."""
    probs = np.full((len(text), len(VOCABULARY)), 0.01)
    for frame, character in enumerate(text):
        probs[frame, VOCABULARY.index(character)] = 0.96
    return np.log(probs)


def aligner(text, **options):
    return CtcAligner(
        lambda audio: posteriors(text),
        lambda word: [VOCABULARY.index(c) for c in word if c in VOCABULARY],
        **options,
    )


def test_words_take_the_frames_of_their_tokens():
    audio = np.zeros(16000 * 2, dtype=np.float32)
    text = "--aa-b-  -cc-a--b---"  # 20 frames, 0.1 s each

    found = aligner(text, separator=4).align(audio, ["ab", "cab"])

    np.testing.assert_allclose(found.times, [[0.2, 0.6], [1.0, 1.7]], atol=1e-6)
    assert found.num_moved == 0


def test_without_separator_words_follow_one_another():
    audio = np.zeros(16000, dtype=np.float32)

    found = aligner("-a-bb-c---").align(audio, ["a", "bc"])

    np.testing.assert_allclose(found.times, [[0.1, 0.2], [0.3, 0.7]], atol=1e-6)


def test_a_word_without_tokens_is_named():
    with pytest.raises(AlignmentError, match="no_pronunciation: 'xyz'"):
        aligner("-a-").align(np.zeros(16000, dtype=np.float32), ["a", "xyz"])
