"""Metrics: the declared counts, and gaps that are named."""

import pytest

from espnet_taste.eval.metrics import METRICS, is_measured, ratio_data


def test_names_are_unique_and_directions_known():
    assert all(metric.name == name for name, metric in METRICS.items())
    assert {metric.better for metric in METRICS.values()} <= {"lower", "higher"}
    assert len(METRICS) >= 25


def test_counts_come_in_sorted_order():
    items = {"b": {"word_errors": 2, "words": 4}, "a": {"word_errors": 1, "words": 9}}

    data = ratio_data(METRICS["wer"], items, "taste")

    assert data.numerators.tolist() == [1.0, 2.0]
    assert data.denominators.tolist() == [9.0, 4.0]


def test_a_gap_is_named_by_system_metric_and_utterance():
    items = {"a": {"word_errors": 1, "words": 3}, "b": {"words": 3}}

    assert is_measured(METRICS["wer"], items)
    assert not is_measured(METRICS["cer"], items)
    with pytest.raises(
        ValueError, match=r"system 'taste', metric 'wer': no word_errors .*\['b'\]"
    ):
        ratio_data(METRICS["wer"], items, "taste")
