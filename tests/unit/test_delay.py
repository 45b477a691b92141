"""The delay layout: the documented example, short utterances, refusals."""

import numpy as np
import pytest
import torch

from espnet_taste.slm.delay import (
    PAD,
    collate,
    delay_words,
    text_labels,
    word_outputs,
)
from espnet_taste.types import IGNORE


def test_the_documented_example():
    layout = delay_words([10, 11, 12, 13, 14, 15], [0, 1, 1, 2, 3, 3], delay=1)

    assert layout.tokens.tolist() == [10, 11, 12, 13, 14, 15, PAD]
    assert layout.taste_words.tolist() == [PAD, 0, 0, 1, 2, 2, 3]
    assert layout.label_words.tolist() == [-1, 0, -1, 1, 2, -1, 3, -1]


def test_fewer_words_than_the_delay():
    layout = delay_words([10, 11], [0, 0], delay=3)

    assert layout.taste_words.tolist() == [PAD, PAD, PAD, PAD, 0]
    assert layout.label_words.tolist() == [-1, -1, -1, -1, 0, -1]


def test_the_arrays_are_int64_and_one_apart():
    layout = delay_words([7], [0], delay=2)

    assert {array.dtype for array in vars(layout).values()} == {np.dtype("int64")}
    assert [len(array) for array in vars(layout).values()] == [3, 3, 4]


@pytest.mark.parametrize(
    ("tokens", "words", "delay", "level", "message"),
    [
        ([1], [0], 0, "word", "delay must be at least 1, got 0"),
        ([1], [0], 0, "token", "delay must be at least 1, got 0"),
        ([1], [0], 1, "phrase", "'word' or 'token', got 'phrase'"),
        ([], [], 1, "word", "length above 0"),
        ([1, 2], [0], 1, "word", r"got shapes \(2,\) and \(1,\)"),
        ([1, 2], [0, 2], 1, "word", r"without gaps, got \[0, 2\]"),
        ([1, 2], [1, 1], 1, "word", "count up from 0"),
        ([1, 2], [-1, 0], 1, "word", "count up from 0"),
    ],
)
def test_what_has_no_layout_is_refused(tokens, words, delay, level, message):
    with pytest.raises(ValueError, match=message):
        delay_words(tokens, words, delay, level)


@pytest.fixture
def batch():
    layouts = [delay_words([5, 6, 7], [0, 1, 1], 1), delay_words([8], [0], 1)]
    return collate(layouts, [np.array([[1, 2], [3, 4]]), np.array([[5, 6]])])


def test_a_batch_is_padded_with_ignore(batch):
    assert batch.tokens.tolist() == [[5, 6, 7, PAD], [8, PAD, IGNORE, IGNORE]]
    assert batch.taste_words.tolist() == [[PAD, 0, 0, 1], [PAD, 0, IGNORE, IGNORE]]
    assert batch.label_words.tolist() == [[-1, 0, -1, 1, -1], [-1, 0, -1, -1, -1]]
    assert batch.word_codes.tolist() == [[[1, 2], [3, 4]], [[5, 6], [-1, -1]]]


def test_no_label_behind_the_end(batch):
    """Reference defect C1: label 0 behind the end of short sequences."""
    assert text_labels(batch.tokens).tolist() == [
        [5, 6, 7, IGNORE, IGNORE],
        [8, IGNORE, IGNORE, IGNORE, IGNORE],
    ]


def test_words_find_the_outputs_that_predict_them(batch):
    assert word_outputs(batch.label_words, 2).tolist() == [[1, 3], [1, 0]]


def test_a_batch_moves_as_a_whole(batch):
    moved = batch.to("meta")

    assert {value.device for value in vars(moved).values()} == {torch.device("meta")}


def test_codes_for_another_number_of_words_are_refused():
    with pytest.raises(ValueError, match="utterance 0 has 2 words but codes for 1"):
        collate([delay_words([1, 2], [0, 1], 1)], [np.zeros((1, 4), dtype=int)])
