"""Conventions by which log-likelihoods become one number."""

import numpy as np
import pytest

from espnet_taste.pipeline.scoring import ScoredItem
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.slm.conventions import (
    CONVENTIONS,
    OF_A_LATENT,
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


def test_the_released_way_is_the_loss_of_text_and_latent():
    losses = np.array([0.5, 1.0, 3.0])
    item = ItemLikelihood(ITEM.tokens, ITEM.token_words, ITEM.codes, losses)

    assert OF_A_LATENT["released"](item) == pytest.approx(-(0.5 * 3.0 + 0.5 * 1.5))
    part = OF_A_LATENT["released"](item.words(1, 3))
    assert part == pytest.approx(-(0.5 * 11 / 3 + 0.5 * 2.0))
    with pytest.raises(ValueError, match="'released' is of a latent"):
        OF_A_LATENT["released"](ITEM)
    with pytest.raises(ValueError, match=r"\(2,\) losses of latents, .* \(3,\)"):
        ItemLikelihood(ITEM.tokens, ITEM.token_words, ITEM.codes, losses[:2])


def test_the_mean_times_its_count_is_the_sum():
    count = ITEM.tokens.size + ITEM.codes.size
    assert CONVENTIONS["mean"](ITEM) * count == pytest.approx(CONVENTIONS["sum"](ITEM))


@pytest.mark.parametrize(
    ("from_s", "window_s", "words"),
    [
        (0.0, np.inf, (0, 3)),
        (0.5, np.inf, (1, 3)),
        (0.2, 0.45, (0, 1)),
        (0.3, 0.5, (1, 2)),
        # An estimate that lets the second word begin before the moment.
        (0.6, np.inf, (1, 3)),
        (0.8, np.inf, (2, 3)),
        (1.3, 9, (2, 3)),
    ],
)
def test_localised_scores_words_with_their_middle_in_the_window(
    from_s, window_s, words
):
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
    with pytest.raises(
        ValueError, match="said .* after 2 s; the last one begins at 1.20"
    ):
        localised(ITEM, TIMES, 2.0)
    with pytest.raises(ValueError, match="3 words but times of shape"):
        localised(ITEM, TIMES[:2], 0.0)
    with pytest.raises(ValueError, match="not one text"):
        normalised(ITEM, ITEM.words(0, 2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_who_asks_whether_a_word_is_inside_is_told_what_is_scored(dtype):
    """0.7 - 0.2 is below 0.5, and 0.7 is not below 0.2 + 0.5."""
    window_s = 0.5
    for hundredths in range(800):
        from_s = hundredths / 100
        at = from_s + window_s
        times = np.array([[-1, 0], [-1, 0], [at, at]], dtype).round(2)
        tokens = TasteTokens(
            words=("a", "b", "c"),
            speaker=np.ones(1, np.float32),
            asr_tokens=np.arange(3),
            asr_words=np.arange(3),
            codes=np.zeros((3, 2), int),
            times=times,
        )
        item = ScoredItem(tokens, from_s=from_s, window_s=window_s)
        is_inside = item.why_not_localised() is None

        assert ("localised" in item.scores(ITEM)) is is_inside
