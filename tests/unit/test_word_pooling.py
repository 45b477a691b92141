"""Word pooling: the mean, and the padding that must not reach it."""

import pytest
import torch

from espnet_taste.layers.word_pooling import first_of_words, pool_words


def column(*values):
    """Turn a row of numbers into features of width 1, (1, T, 1)."""
    return torch.tensor(values)[None, :, None]


def test_subwords_of_a_word_share_their_mean():
    features = column(1.0, 3.0, 10.0)
    words = torch.tensor([[0, 0, 1]])

    pooled = pool_words(features, words, torch.tensor([3]))

    assert pooled.flatten().tolist() == [2.0, 2.0, 10.0]


@pytest.mark.parametrize("pad_value", [0, -1, 7])
def test_padding_does_not_reach_a_one_word_row(pad_value):
    """Reference defect C2: pad value 0 is also the id of the first word."""
    features = column(1.0, 3.0, 99.0)
    words = torch.tensor([[0, 0, pad_value]])

    pooled = pool_words(features, words, torch.tensor([2]))

    assert pooled.flatten().tolist() == [2.0, 2.0, 0.0]


def test_gradients_are_shared_within_a_word_and_absent_on_padding():
    features = column(1.0, 3.0, 10.0, float("nan")).requires_grad_()
    words = torch.tensor([[0, 0, 1, 0]])
    weights = torch.tensor([1.0, 2.0, 4.0, 8.0])[None, :, None]

    (pool_words(features, words, torch.tensor([3])) * weights).sum().backward()

    assert features.grad.flatten().tolist() == [1.5, 1.5, 4.0, 0.0]


def test_shape_mismatch_names_both_shapes():
    with pytest.raises(ValueError, match=r"expected words \(1, 3\).*got \(1, 2\)"):
        pool_words(column(1.0, 2.0, 3.0), torch.zeros(1, 2), torch.tensor([3]))


@pytest.mark.parametrize("num_words", [None, 2])
@pytest.mark.parametrize("pad_value", [0, -1, 7])
def test_one_row_a_word(pad_value, num_words):
    codes = torch.tensor([[[1, 2], [1, 2], [3, 4]], [[5, 6], [9, 9], [9, 9]]])
    words = torch.tensor([[0, 0, 1], [0, pad_value, pad_value]])

    rows = first_of_words(codes, words, torch.tensor([3, 1]), num_words)

    assert rows.tolist() == [[[1, 2], [3, 4]], [[5, 6], [-1, -1]]]
