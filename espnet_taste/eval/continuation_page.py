"""The section of the results page on spoken continuations."""

from collections.abc import Mapping
from typing import Any

from espnet_taste.eval import published
from espnet_taste.eval.cells import NOTHING, bullets, table

NOTES = (
    "GenPPL is the perplexity of what the judge heard under the named text LM; what "
    "repeats itself has a low one, so auto-BLEU, the share of its repeated pairs of "
    "words, stands beside it.",
    "Opinion scores are estimated, and compare within one estimator only.",
)
COLUMNS = {
    "gen_ppl": ("GenPPL", 1),
    "auto_bleu": ("auto-BLEU", 3),
    "words": ("words", 1),
}


def render_continuations(scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the section; nothing if none were scored.

    Args:
        scores: Test set to the content of ``continuations.json``.
    """
    if not scores:
        return []
    ratings = dict.fromkeys(n for facts in scores.values() for n in _ratings(facts))
    head = ["set", *(name for name, _ in COLUMNS.values()), *ratings, "without a word"]
    rows = []
    for name, facts in scores.items():
        cells = [_cell(facts.get(key), digits) for key, (_, digits) in COLUMNS.items()]
        cells += [_cell(_ratings(facts).get(key), 2) for key in ratings]
        rows.append([name, *cells, f"{facts['num_empty']} of {facts['num_items']}"])
    notes = [*NOTES, *dict.fromkeys(map(_who, scores.values()))]
    notes += [
        f"`{name}`: {facts['num_unrated']} of {facts['num_items']} lack an opinion "
        "score and are left out of its mean."
        for name, facts in scores.items()
        if facts.get("num_unrated")
    ]
    notes += [
        f"`{name}`: {facts['num_absent']} more prompts have no continuation."
        for name, facts in scores.items()
        if facts.get("num_absent")
    ]
    if any(facts.get("prompts_cut_off") for facts in scores.values()):
        notes.append(
            "The recordings begin with their prompts: these words are cut off what was "
            "heard, and opinion scores are of both."
        )
    notes += published.lines(next(iter(scores.values())).get("published", {}))
    return ["## Spoken continuations", table(head, rows), bullets(notes)]


def _who(facts: Mapping[str, Any]) -> str:
    return f"Judge: {facts['judge']}; text LM: {facts['llm']}."


def _ratings(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts.get("ratings", {})


def _cell(found: Mapping[str, Any] | None, digits: int) -> str:
    if found is None or found["value"] is None:
        return NOTHING
    value = f"{found['value']:.{digits}f}"
    if found["low"] is None:
        return value
    return f"{value} [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
