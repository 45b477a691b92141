"""The delay loses nothing and shows no word before it is predicted."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from espnet_taste.slm.delay import PAD, collate, delay_words, word_outputs
from espnet_taste.types import IGNORE

sizes = st.lists(st.integers(1, 4), min_size=1, max_size=6)
delays = st.integers(1, 4)
levels = st.sampled_from(["word", "token"])


def words_of(sizes_of_words):
    return [word for word, size in enumerate(sizes_of_words) for _ in range(size)]


def layout_by_loop(words, delay):
    """Release each word's TASTE the way a listener would: D word starts later."""
    taste, labels, said, last = [], [], [], PAD
    for word in words:
        labels.append(IGNORE)
        if word not in said:
            said.append(word)
            if len(said) > delay:
                last = labels[-1] = said[-1 - delay]
        taste.append(last)
    missing = said[max(len(said) - delay, 0) :]
    missing = [PAD] * (delay - len(missing)) + missing
    labels += [IGNORE if word == PAD else word for word in missing]
    return taste + missing, labels + [IGNORE]


@given(sizes, delays)
def test_matches_the_loop(sizes_of_words, delay):
    words = words_of(sizes_of_words)

    layout = delay_words(range(len(words)), words, delay)

    assert (layout.taste_words.tolist(), layout.label_words.tolist()) == (
        layout_by_loop(words, delay)
    )


@given(st.lists(sizes, min_size=1, max_size=4), delays, levels)
def test_undelay_of_delay_is_the_identity(batch_sizes, delay, level):
    """Reading the labels back by word returns every word's codes, once."""
    rows = [words_of(row) for row in batch_sizes]
    codes = [np.random.randint(0, 9, (max(row) + 1, 3)) for row in rows]
    layouts = [delay_words(range(len(row)), row, delay, level) for row in rows]
    batch = collate(layouts, codes)

    # What a perfect model says at every output: the codes of the labelled word.
    said = batch.word_codes.gather(
        1, batch.label_words.clamp(min=0)[..., None].expand(-1, -1, 3)
    )
    said[batch.label_words == IGNORE] = -7
    outputs = word_outputs(batch.label_words, batch.word_codes.size(1))
    read = said.gather(1, outputs[..., None].expand(-1, -1, 3))

    valid = batch.word_codes != IGNORE
    assert torch.equal(read[valid], batch.word_codes[valid])
    assert int((batch.label_words >= 0).sum()) == sum(len(row) for row in codes)


@given(sizes, delays, levels)
def test_a_word_is_predicted_before_it_is_read(sizes_of_words, delay, level):
    """Output p has read fused positions below p only."""
    words = words_of(sizes_of_words)
    layout = delay_words(range(len(words)), words, delay, level)

    for word in range(words[-1] + 1):
        predicted_at = layout.label_words.tolist().index(word)
        first_read = layout.taste_words.tolist().index(word)
        assert predicted_at == first_read
        assert predicted_at > words.index(word)
