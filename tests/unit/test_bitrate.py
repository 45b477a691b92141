"""Bit rates: hand-computed entropies and rates."""

import numpy as np
import pytest

from espnet_taste.eval.bitrate import code_rate, entropy_bits, rate_values, text_rate


def test_entropy_by_hand():
    assert entropy_bits(np.array([1, 1, 0, 0])) == 1.0
    assert entropy_bits(np.array([2, 1, 1])) == 1.5
    assert str(entropy_bits(np.array([5, 0]))) == "0.0"
    assert entropy_bits(np.zeros(4)) == 0.0


def test_word_codes():
    codes = {"a": np.array([[0, 3], [1, 3]]), "b": np.array([[0, 3.0], [1, 3.0]])}

    rate = code_rate(codes, {"a": 1.0, "b": 1.0, "unused": 9.0}, num_entries=4)

    assert rate.num_steps == 4
    assert rate.nominal_bits == 4.0  # two codebooks of 2 bits
    assert rate.used_bits == 1.0  # the second codebook never changes
    assert rate.used_entries == (2, 1)
    assert (rate.nominal_bps, rate.used_bps) == (8.0, 2.0)


def test_units_are_one_stream():
    rate = code_rate({"a": np.arange(8)}, {"a": 2.0}, num_entries=8)

    assert (rate.num_steps, rate.nominal_bps, rate.used_bps) == (8, 12.0, 12.0)


def test_text():
    rate = text_rate({"a": "abab", "b": ""}, {"a": 2.0, "b": 2.0})

    assert (rate.num_steps, rate.used_bits, rate.used_bps) == (4, 1.0, 1.0)


def test_values_carry_the_stream():
    rate = code_rate({"a": np.arange(8)}, {"a": 2.0}, num_entries=8)

    values = rate_values("unit", rate)

    assert values["unit_used_bps"] == 12.0
    assert values["unit_used_entries"] == 8


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0, -1]]), r"'a' must be in 0..3, got -1..0"),
        (np.array([[0, 4]]), "got 0..4"),
        (np.array([[0.5, 1]]), "'a' are not whole"),
        (np.array([[0]]), r"one number of codebooks, got \[1, 2\]"),
    ],
)
def test_impossible_codes_are_refused(array, message):
    codes = {"a": array, "b": np.array([[1, 1]])}
    with pytest.raises(ValueError, match=message):
        code_rate(codes, {"a": 1.0, "b": 1.0}, num_entries=4)


def test_a_missing_duration_is_named():
    with pytest.raises(ValueError, match=r"no duration for 1 utterances: \['a'\]"):
        code_rate({"a": np.array([1])}, {}, num_entries=4)
    with pytest.raises(ValueError, match="empty text"):
        text_rate({"a": ""}, {"a": 1.0})
