"""Reliance: the rise of the pooled loss, paired by utterance."""

import numpy as np
import pytest

from espnet_taste.eval.metrics import METRICS
from espnet_taste.eval.reliance import measure_rise, rise_items
from espnet_taste.eval.results import score_metric
from espnet_taste.eval.unit_scores import UnitCounts, unit_items


def counts(*losses, size=10):
    return {f"u{n}": UnitCounts(loss, 0, 0, size) for n, loss in enumerate(losses)}


def test_the_rise_is_pooled_over_units():
    matched = {"a": UnitCounts(10.0, 0, 0, 10), "b": UnitCounts(90.0, 0, 0, 30)}
    exchanged = {"a": UnitCounts(14.0, 0, 0, 10), "b": UnitCounts(94.0, 0, 0, 30)}

    assert measure_rise(matched, exchanged).value == pytest.approx(8 / 40)


def test_a_steady_rise_excludes_zero_however_noisy_the_losses():
    matched = counts(5.0, 500.0, 50.0, 1000.0)
    exchanged = counts(6.0, 501.0, 51.0, 1001.0)

    rise = measure_rise(matched, exchanged)

    assert (rise.low, rise.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_a_decoder_that_ignores_its_condition_has_none():
    rise = measure_rise(counts(5.0, 6.0), counts(5.0, 6.0))

    assert rise.value == 0.0
    assert not rise.excludes_zero


def test_only_the_conditions_present_become_fields():
    scores = {"matched": counts(5.0), "exchanged_text": counts(7.5)}

    assert rise_items(scores) == {"u0": {"rise_exchanged_text_sum": 2.5}}


def test_unpaired_scores_are_refused():
    with pytest.raises(ValueError, match=r"one condition only: \['u1'\]"):
        measure_rise(counts(5.0, 6.0), counts(5.0))
    with pytest.raises(ValueError, match="'u0' predicts other units"):
        measure_rise(counts(5.0), counts(5.0, size=11))


def test_the_report_shows_the_same_rise():
    """The page computes it from fields; both ways must agree, interval included."""
    losses = np.random.default_rng(0).uniform(5, 20, size=(2, 15))
    scores = {"matched": counts(*losses[0]), "exchanged_codes": counts(*losses[1])}
    rises = rise_items(scores)
    items = {key: f | rises[key] for key, f in unit_items(scores).items()}

    shown = score_metric(METRICS["reliance_codes"], items, "taste", seed=0)

    rise = measure_rise(scores["matched"], scores["exchanged_codes"])
    assert (shown.value, shown.low, shown.high) == pytest.approx(
        (rise.value, rise.low, rise.high)
    )
