"""From score files to ``results.json``: every cell a number or a stated reason.

A row is one system. For every row it is declared which scores it must have
(``ROLES``); a score that is missing, NaN or infinite stops the run and is named. A
cell may be without a number only with a note that says why.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from espnet_taste.eval.bootstrap import (
    SEED,
    Interval,
    RatioData,
    paired_difference,
    ratio_interval,
)
from espnet_taste.eval.metrics import METRICS, Items, Metric, is_measured, ratio_data
from espnet_taste.eval.roles import (
    PAIR_METRICS,
    PAIRS,
    ROLES,
    SLM_MAIN,
    SLM_PAIRS,
    Role,
)
from espnet_taste.eval.score_file import ScoreFile

SCHEMA = "espnet_taste.results/1"


@dataclass(frozen=True)
class Score:
    """One cell: a number with its interval, or the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    num_items: int = 0  # utterances
    note: str = ""

    def __post_init__(self):
        if self.value is None and not self.note:
            raise ValueError("a score without a value needs a note that says why")
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"expected a finite score, got {number!r}")

    @property
    def excludes_zero(self) -> bool:
        """Say whether the interval exists and lies on one side of 0."""
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """One system on one test set."""

    role: str
    system: str
    scores: Mapping[str, Score]
    values: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Difference:
    """Paired difference of two systems (or two metrics) on the same utterances."""

    metric: str
    first: str
    second: str
    score: Score  # first minus second


@dataclass(frozen=True)
class SetResults:
    """All rows of one test set."""

    name: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]

    def row(self, role: str) -> Row | None:
        """Return the row of a role, or None if it is absent."""
        return next((row for row in self.rows if row.role == role), None)

    def difference(self, metric: str, first: str, second: str) -> Difference | None:
        """Return one comparison, or None if it was not made."""
        wanted = (metric, first, second)
        found = (d for d in self.differences if (d.metric, d.first, d.second) == wanted)
        return next(found, None)


@dataclass(frozen=True)
class Results:
    """Everything a results page is made of."""

    metadata: Mapping[str, str]
    sets: tuple[SetResults, ...]
    # data set -> preparation step -> {"kept": n, "excluded": {reason: n}}
    exclusions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # data set -> content of pairs.json
    pairs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # test set -> content of continuations.json
    continuations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # data set -> content of answers.json
    answers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        return {"schema": SCHEMA, **asdict(self)}


def build_set(
    name: str, scores: Mapping[str, Sequence[ScoreFile]], *, seed: int = SEED
) -> SetResults:
    """Assemble the rows and comparisons of one test set.

    Args:
        name: Name of the test set.
        scores: Role to the score files of its system.
        seed: Seed of the bootstrap.

    Returns:
        The rows in the order of ``ROLES``, and every paired difference there is.

    Raises:
        ValueError: If a role is unknown, a required row, file, metric or utterance is
            missing, or two systems were scored on different utterances.
    """
    unknown = sorted(scores.keys() - ROLES.keys())
    if unknown:
        raise ValueError(f"unknown roles {unknown}; expected some of {list(ROLES)}")
    absent = [
        role.name
        for role in ROLES.values()
        if not role.optional and role.name not in scores
    ]
    if absent:
        raise ValueError(f"set '{name}': no scores for the rows {absent}")
    ordered = {role: scores[role] for role in ROLES if role in scores}
    text_rate = _text_rate([file for files in ordered.values() for file in files])
    rows = tuple(
        _build_row(ROLES[role], files, text_rate, seed)
        for role, files in ordered.items()
    )
    items = {role: merge_items(files) for role, files in ordered.items()}
    return SetResults(name, rows, tuple(_differences(items, seed)))


def merge_items(files: Sequence[ScoreFile]) -> dict[str, dict[str, float]]:
    """Join the counts of a system's score files by utterance.

    Raises:
        ValueError: If two files count the same field.
    """
    merged: dict[str, dict[str, float]] = {}
    for file in files:
        for key, fields in file.items.items():
            known = merged.setdefault(key, {})
            twice = known.keys() & fields.keys()
            if twice:
                raise ValueError(
                    f"system '{file.system}', set '{file.set_name}': two score files "
                    f"count {sorted(twice)} of '{key}'"
                )
            known.update(fields)
    return merged


def score_metric(metric: Metric, items: Items, system: str, *, seed: int) -> Score:
    """Score one metric with its interval.

    Raises:
        ValueError: If a count is missing, or the metric is undefined and may not be;
            names system, metric and utterance.
    """
    data = ratio_data(metric, items, system)
    if metric.undefined and not data.denominators.sum():
        return Score(None, num_items=len(items), note=metric.undefined)
    try:
        return _as_score(ratio_interval(data, seed=seed))
    except ValueError as error:
        raise ValueError(
            f"system '{system}', metric '{metric.name}': {error}"
        ) from error


def _text_rate(files: Sequence[ScoreFile]) -> dict[str, float]:
    """Return the transcript's rate, which is the set's and not one system's."""
    rates = [
        {name: v for name, v in file.values.items() if name.startswith("text_")}
        for file in files
        if file.kind == "codes"
    ]
    if any(rate != rates[0] for rate in rates):
        raise ValueError("the systems' transcripts have different rates")
    return rates[0] if rates else {}


def _build_row(
    role: Role, files: Sequence[ScoreFile], text_rate: Mapping[str, float], seed: int
) -> Row:
    """Score one system."""
    system = files[0].system if files else role.name
    where = f"system '{system}' ({role.label})"
    lacking = [kind for kind in role.kinds if kind not in [f.kind for f in files]]
    if lacking:
        raise ValueError(f"{where}: no scores of kind {lacking}")
    scores: dict[str, Score] = {}
    # File by file: the kinds may cover different utterances, which a merged table
    # would show as gaps.
    for file in files:
        for metric in METRICS.values():
            if is_measured(metric, file.items):
                scores[metric.name] = score_metric(
                    metric, file.items, file.system, seed=seed
                )
    values = {name: v for file in files for name, v in file.values.items()}
    values = {k: v for k, v in values.items() if not k.startswith("text_")}
    if role.reads_text:
        values |= text_rate
    for name in (*role.metrics, *role.values):
        if name not in scores and name not in values:
            raise ValueError(f"{where}: no score '{name}' on set '{files[0].set_name}'")
    if role.name == "slm" and not any(name in scores for name in SLM_MAIN):
        raise ValueError(f"{where}: no score of {SLM_MAIN}")
    skipped = {
        f"{file.kind}: {reason}": count
        for file in files
        for reason, count in file.skipped.items()
    }
    metadata = {name: v for file in files for name, v in file.metadata.items()}
    return Row(role.name, system, scores, values, skipped, metadata)


def _differences(items: Mapping[str, Items], seed: int) -> list[Difference]:
    """Compare every pair of systems that is there, metric by metric."""
    found = []
    for first, second in PAIRS:
        if first not in items or second not in items:
            continue
        for name in PAIR_METRICS:
            sides = (items[first], items[second])
            if not all(is_measured(METRICS[name], side) for side in sides):
                continue
            data = [_measured_data(METRICS[name], items[r], r) for r in (first, second)]
            keys = [_measured_keys(METRICS[name], side) for side in sides]
            if keys[0] != keys[1]:
                raise ValueError(
                    f"metric '{name}': '{first}' and '{second}' were scored on "
                    f"different utterances: {sorted(keys[0] ^ keys[1])[:10]}"
                )
            score = _paired_score(METRICS[name], data[0], data[1], seed)
            found.append(Difference(name, first, second, score))
    return found + _slm_differences(items.get("slm", {}), seed)


def _slm_differences(items: Items, seed: int) -> list[Difference]:
    """Compare the spoken LM with its baselines."""
    found = []
    for first, second in SLM_PAIRS:
        if not all(is_measured(METRICS[name], items) for name in (first, second)):
            continue
        data = [ratio_data(METRICS[name], items, "slm") for name in (first, second)]
        score = _paired_score(METRICS[first], data[0], data[1], seed)
        found.append(Difference(first, first, second, score))
    return found


def _measured_keys(metric: Metric, items: Items) -> set[str]:
    """Return the utterances a metric was measured on."""
    return {key for key, fields in items.items() if metric.numerator in fields}


def _measured_data(metric: Metric, items: Items, system: str) -> RatioData:
    """Return a metric's counts on the utterances it was measured on."""
    keys = _measured_keys(metric, items)
    return ratio_data(metric, {key: items[key] for key in keys}, system)


def _paired_score(
    metric: Metric, first: RatioData, second: RatioData, seed: int
) -> Score:
    """Return a paired difference, or why there is none."""
    if metric.undefined and not (
        first.denominators.sum() and second.denominators.sum()
    ):
        return Score(None, num_items=len(first.numerators), note=metric.undefined)
    return _as_score(paired_difference(first, second, seed=seed))


def _as_score(interval: Interval) -> Score:
    """Turn an interval into a cell."""
    note = "" if interval.low is not None else "too few utterances for an interval"
    return Score(interval.value, interval.low, interval.high, interval.num_items, note)
