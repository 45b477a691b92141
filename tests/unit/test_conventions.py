"""Conventions by which log-likelihoods become one number."""

import numpy as np
import pytest

from espnet_taste.slm.conventions import (
    CONVENTIONS,
    ItemLikelihood,
    localised,
    normalised,
)

ITEM = ItemLikelihood(
    np.array([-1.0, -3.0, -2.0, -6.0]),
    np.array([0, 1, 1, 2]),
    np.array([[-4.0, -1.0], [-2.0, -3.0], [-6.0, -5.0]]),
)
TIMES = np.array([[0.1, 0.4], [0.5, 0.9], [1.2, 1.5]])


def test_every_convention_by_hand():
    scores = {name: score(ITEM) for name, score in CONVENTIONS.items()}

    assert scores == pytest.approx(
        {
            "sum": -12 - 21,
            "mean": -33 / 10,
            "text_only": -12 / 4,
            "speech_only": -12 / 3 - 9 / 3,
            "taste": -12 / 4 - 12 / 3 - 9 / 3,
        }
    )


def test_the_mean_times_its_count_is_the_sum():
    count = ITEM.tokens.size + ITEM.codes.size
    assert CONVENTIONS["mean"](ITEM) * count == pytest.approx(CONVENTIONS["sum"](ITEM))


@pytest.mark.parametrize(
    ("from_s", "window_s", "words"),
    [
        (0.0, np.inf, (0, 3)),
        (0.5, np.inf, (1, 3)),
        (0.2, 0.5, (1, 2)),
        (1.2, 9, (2, 3)),
    ],
)
def test_localised_scores_words_that_begin_in_the_window(from_s, window_s, words):
    part = ITEM.words(*words)
    for name, score in CONVENTIONS.items():
        assert localised(ITEM, TIMES, from_s, window_s, name) == score(part)
    assert part.token_words[0] == 0


def test_normalised_is_the_difference():
    other = ItemLikelihood(ITEM.tokens - 1, ITEM.token_words, ITEM.codes - 2)

    assert normalised(ITEM, other, "text_only") == pytest.approx(1.0)
    assert normalised(ITEM, other) == pytest.approx(1 + 2 * 2)
    assert normalised(ITEM, ITEM) == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"tokens": np.array([-1.0, np.nan, -2.0, -6.0])}, "not a finite number"),
        ({"codes": np.full((3, 2), -np.inf)}, "not a finite number"),
        ({"codes": ITEM.codes[:2]}, "4 tokens with 2 rows"),
        ({"token_words": np.array([0, 1])}, "do not belong together"),
        ({"tokens": np.zeros(0), "token_words": np.zeros(0, int)}, "at least one word"),
    ],
)
def test_what_does_not_belong_together_is_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        ItemLikelihood(**vars(ITEM) | parts)


def test_a_window_without_words_is_refused():
    with pytest.raises(ValueError, match="after 2 s; the last one begins at 1.20 s"):
        localised(ITEM, TIMES, 2.0)
    with pytest.raises(ValueError, match="3 words but times of shape"):
        localised(ITEM, TIMES[:2], 0.0)
    with pytest.raises(ValueError, match="not one text"):
        normalised(ITEM, ITEM.words(0, 2))
