"""The word-delay layout must equal the released one on every recorded case."""

import numpy as np

from espnet_taste.slm.delay import PAD, delay_words
from espnet_taste.types import IGNORE


def from_json(values, empty):
    return [empty if value is None else value for value in values]


def test_every_recorded_layout(golden):
    cases = golden("logic_delay").info["cases"]
    assert cases
    for case in cases:
        words = case["word_ids"]
        tokens = np.arange(len(words)) + 100

        layout = delay_words(tokens, words, case["delay"], case["level"])

        expected = from_json(case["audio_word"], PAD)
        assert layout.taste_words.tolist() == expected, case
        expected = from_json(case["label_word"], IGNORE)
        assert layout.label_words.tolist() == expected, case
        assert layout.tokens.tolist() == [*tokens] + [PAD] * case["delay"]
