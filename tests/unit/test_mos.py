"""Estimated opinion scores: real estimators on noisy speech, and their faults."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_taste.eval import mos
from espnet_taste.eval.continuations import summarise
from espnet_taste.eval.mos import ESTIMATORS, load_estimators, rate_all
from espnet_taste.packages import MissingPackageError

PACKAGES = {"distillmos": "distillmos", "dnsmos": "speechmos"}


DATA = Path(__file__).parents[3] / "shared" / "data" / "librispeech_excerpts" / "test"


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_noise_lowers_the_score_of_real_speech(name):
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} of the extra eval is not installed")
    if not DATA.is_dir():
        pytest.skip("no speech beside the checkout: ../shared/data is absent")
    clean, _ = soundfile.read(min(DATA.rglob("*.flac")), dtype="float32")
    noise = np.random.default_rng(0).standard_normal(len(clean))
    estimators = load_estimators([name])

    before = rate_all(estimators, clean)
    after = rate_all(estimators, (clean + 0.03 * noise).astype(np.float32))

    assert list(before) == list(ESTIMATORS[name].scores)
    overall = {"distillmos": "distillmos", "dnsmos": "dnsmos_ovrl"}[name]
    assert 1 <= after[overall] < before[overall] - 0.5 < 5


def test_what_is_shorter_than_a_syllable_is_not_rated():
    class Never:
        name, scores = "never", ("a", "b")

    assert rate_all([Never()], np.zeros(100, np.float32)) == {"a": None, "b": None}


def test_a_score_that_is_not_finite_is_named():
    class Broken:
        name, scores = "broken", ("a",)

        def rate(self, audio):
            return (float("nan"),)

    with pytest.raises(ValueError, match="broken gave"):
        rate_all([Broken()], np.zeros(9000, np.float32))


def test_unknown_and_missing_estimators(monkeypatch):
    with pytest.raises(ValueError, match=r"\['utmos'\]; there are \['distillmos'"):
        load_estimators(["utmos"])

    def absent(name):
        raise MissingPackageError(f"scoring needs {name}")

    monkeypatch.setattr(mos, "require", absent)
    for name in ESTIMATORS:
        with pytest.raises(MissingPackageError, match=PACKAGES[name]):
            load_estimators([name])


def test_ratings_are_means_of_what_was_rated():
    from tests.unit.test_eval_continuations import heard

    items = {"u": heard(), "v": heard(), "w": heard()}
    ratings = {"u": {"a": 2.0}, "v": {"a": 3.0}, "w": {"a": None}}

    found = summarise(items, ratings)

    assert found["ratings"]["a"]["value"] == pytest.approx(2.5)
    assert found["num_unrated"] == 1
    nobody = summarise(items, {"w": {"a": None}})
    assert nobody["ratings"]["a"] == {"value": None, "low": None, "high": None}
