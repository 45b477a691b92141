"""The section of the results page on pairs of speech."""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_taste.eval import published
from espnet_taste.eval.cells import NOTHING, bullets, table

NOTES = (
    "A pair counts where its right half is the likelier one, ties half; chance is "
    "50 %. Intervals are over pairs, taken as independent of each other. "
    "Pairs that the recipe made from a test set are named `..._switch`: they are "
    "neither SALMon nor StoryCloze, and compare models on this corpus alone.",
    "The columns are ways of adding up log-likelihoods (`espnet_taste/slm/"
    "conventions.py`): `localised` counts what is said after the switch only. Codes "
    "and words of what stands before come from one pass over the whole half, so they "
    "may know of the switch.",
)


def render_pairs(pairs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the section; nothing if there were no pairs.

    Args:
        pairs: Test set to the content of ``pairs.json``.
    """
    if not pairs:
        return []
    parts = ["## Spoken LM on pairs of speech"]
    for name, content in pairs.items():
        source = content["transcripts"]
        parts.append(f"Of `{name}`; the words' source: {source}.")
        parts.append(_table(content["conventions"]))
        if few := [*_few(content.get("made", {})), *gaps(content)]:
            parts.append(bullets(few))
        if content.get("published"):
            parts.append(bullets(published.lines(content["published"])))
    return [*parts, bullets(NOTES)]


def gaps(content: Mapping[str, Any]) -> list[str]:
    """Name what has no score, with the reasons, and the means that lack a part.

    Args:
        content: Of ``pairs.json``; older ones do not tell.
    """
    texts = []
    for part, reasons in content.get("left_out", {}).items():
        counts = ", ".join(f"{count} {name}" for name, count in reasons.items())
        texts.append(f"{part}: halves without a score: {counts}")
    for name, missing in content.get("means_without", {}).items():
        texts.append(f"no {name}: without {', '.join(missing)}")
    return texts


def _few(made: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Name the kinds of which the set has fewer pairs than were wanted."""
    return [
        f"`{kind}`: {facts['made']} of {facts['wanted']} pairs; the set has no more."
        for kind, facts in made.items()
        if facts["made"] < facts["wanted"]
    ]


def _table(conventions: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one row a kind of pair and one column a convention."""
    kinds = list(
        dict.fromkeys(kind for parts in conventions.values() for kind in parts)
    )
    rows = []
    for kind in kinds:
        cells = [parts.get(kind) for parts in conventions.values()]
        rows.append([kind, *map(_cell, cells), _count(cells)])
    return table(["pairs", *conventions, "scored of all"], rows)


def _cell(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return NOTHING
    value = f"{100 * facts['accuracy']:.1f}%"
    if facts.get("low") is None:
        return value
    return f"{value} [{100 * facts['low']:.1f}, {100 * facts['high']:.1f}]"


def _count(cells: Sequence[Mapping[str, Any] | None]) -> str:
    """Return how many pairs were scored; conventions may have left out others."""
    known = [c for c in cells if c is not None and "num_pairs" in c]
    if not known:
        return NOTHING
    scored = [facts["num_scored"] for facts in known]
    ends = dict.fromkeys((min(scored), max(scored)))
    return f"{' to '.join(map(str, ends))} of {known[0]['num_pairs']}"
