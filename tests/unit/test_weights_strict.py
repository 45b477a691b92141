"""Weights fit completely or are refused by name."""

import pytest
import torch

from espnet_taste.weights.strict import require_fit

STATE = {"a": torch.zeros(2), "b": torch.zeros(3)}


def test_equal_names_and_shapes_fit():
    require_fit(STATE, {"b": torch.ones(3), "a": torch.ones(2)}, "x", "net")


@pytest.mark.parametrize(
    ("state", "count"),
    [
        ({"a": torch.zeros(2)}, r"1 tensors .*\['b'\]"),
        ({**STATE, "c": torch.zeros(1)}, r"1 tensors .*\['c'\]"),
        ({"a": torch.zeros(2), "b": torch.zeros(1, 3)}, r"1 tensors .*\['b'\]"),
        ({}, r"2 tensors .*\['a', 'b'\]"),
    ],
)
def test_what_does_not_fit_is_named(state, count):
    with pytest.raises(ValueError, match=f"file: not the weights of this net; {count}"):
        require_fit(STATE, state, "file", "net")
