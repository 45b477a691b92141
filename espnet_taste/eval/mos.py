"""Estimates of how a listener would rate a recording, without a reference.

Two published estimators, whose weights are inside their packages. They tell systems
apart and are no opinion scores: each has its own scale, so values are compared within
one estimator only.

Source: DistillMOS (arXiv:2502.05356); DNSMOS P.835 (arXiv:2110.01763) and P.808
(arXiv:2010.15258).
"""

import contextlib
import importlib
import io
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch

from espnet_taste.packages import require
from espnet_taste.types import SAMPLE_RATE_HZ

# DistillMOS looks at windows of 7.68 s; DNSMOS repeats what is shorter than 9.01 s.
MIN_SAMPLES = SAMPLE_RATE_HZ // 10


class MosEstimator(Protocol):
    """Rates recordings."""

    name: str
    scores: tuple[str, ...]  # names of what it estimates

    def rate(self, audio: np.ndarray) -> tuple[float, ...]:
        """Rate mono audio, (n,), float32, 16 kHz; one value a score."""


class DistillMos:
    """Overall quality by a small model distilled from XLS-R.

    Raises:
        MissingPackageError: If distillmos is not installed.
    """

    name = "distillmos"
    scores = ("distillmos",)

    def __init__(self):
        package = require("distillmos")
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it lies
            self.model = package.ConvTransformerSQAModel().eval()

    @torch.no_grad()
    def rate(self, audio: np.ndarray) -> tuple[float, ...]:
        """Rate mono audio; see ``MosEstimator``."""
        return (float(self.model(torch.from_numpy(audio)[None])),)


class DnsMos:
    """Overall, signal and background quality (P.835), and P.808.

    Raises:
        MissingPackageError: If speechmos is not installed.
    """

    name = "dnsmos"
    scores = ("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak", "dnsmos_p808")

    def __init__(self):
        require("speechmos")
        self.run = importlib.import_module("speechmos.dnsmos").run

    def rate(self, audio: np.ndarray) -> tuple[float, ...]:
        """Rate mono audio; see ``MosEstimator``."""
        # It refuses samples beyond 1, which resampling makes of full-scale speech.
        found = self.run(np.clip(audio, -1.0, 1.0), SAMPLE_RATE_HZ)
        return tuple(
            float(found[score.removeprefix("dnsmos_") + "_mos"])
            for score in self.scores
        )


ESTIMATORS = {"distillmos": DistillMos, "dnsmos": DnsMos}


def load_estimators(names: Iterable[str]) -> list[MosEstimator]:
    """Load estimators by name.

    Raises:
        ValueError: If there is none of that name.
        MissingPackageError: If its package is not installed.
    """
    unknown = sorted(set(names) - set(ESTIMATORS))
    if unknown:
        raise ValueError(f"no MOS estimator {unknown}; there are {sorted(ESTIMATORS)}")
    return [ESTIMATORS[name]() for name in names]


def rate_all(
    estimators: Iterable[MosEstimator], audio: np.ndarray
) -> dict[str, float | None]:
    """Rate one recording.

    Args:
        estimators: Who rates.
        audio: Mono, (n,), float32, 16 kHz.

    Returns:
        Score name to value; None where the recording is shorter than 0.1 s.

    Raises:
        ValueError: If a value is not finite.
    """
    found: dict[str, float | None] = {}
    for estimator in estimators:
        if len(audio) < MIN_SAMPLES:
            found.update(dict.fromkeys(estimator.scores))
            continue
        values = dict(zip(estimator.scores, estimator.rate(audio), strict=True))
        if not np.isfinite(list(values.values())).all():
            raise ValueError(f"{estimator.name} gave {values}")
        found.update(values)
    return found
