"""Speaker similarity: the cosine, and pairs that cannot be compared."""

import numpy as np
import pytest

from espnet_taste.eval.speaker import cosine_similarity, similarity_items


def test_by_hand():
    x, y = np.array([1.0, 0.0]), np.array([1.0, 1.0])

    assert cosine_similarity(x, y) == pytest.approx(np.sqrt(0.5))
    assert cosine_similarity(x, -3 * x) == pytest.approx(-1.0)


def test_loudness_does_not_count():
    x = np.random.default_rng(0).normal(size=256).astype(np.float32)

    assert cosine_similarity(x, 7 * x) == pytest.approx(1.0)
    assert cosine_similarity(x, 7 * x) <= 1.0


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (np.zeros(2), "'u': an embedding is all zeros"),
        (np.array([np.nan, 1.0]), "'u': .*not finite"),
        (np.ones(3), r"'u': .*got \(2,\) and \(3,\)"),
    ],
)
def test_a_pair_that_cannot_be_compared_is_named(other, message):
    with pytest.raises(ValueError, match=message):
        similarity_items({"u": np.ones(2)}, {"u": other})


def test_only_outputs_with_audio_are_compared():
    items = similarity_items({"u": np.ones(2), "v": np.ones(2)}, {"v": np.ones(2)})

    assert items == {"v": {"similarity": pytest.approx(1.0), "compared": 1}}
    with pytest.raises(ValueError, match="no reference speaker embedding for 'w'"):
        similarity_items({}, {"w": np.ones(2)})
