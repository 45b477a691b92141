"""The section of the results page on spoken questions."""

from collections.abc import Mapping
from typing import Any

from espnet_taste.eval import published
from espnet_taste.eval.cells import bullets, table

NOTES = (
    "An answer is right if an accepted one stands in it, in whole words and with "
    "numbers as digits (`espnet_taste/eval/answers.py`); a question without an answer "
    "is wrong. Intervals are over questions.",
)
HEAD = ("set", "right answers", "without an answer", "answers", "judged", "examples")


def render_answers(answers: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the section; nothing if no questions were asked.

    Args:
        answers: Data set to the content of ``answers.json``.
    """
    if not answers:
        return []
    rows, notes = [], list(NOTES)
    for name, facts in answers.items():
        count = facts["num_items"]
        rows.append(
            [
                name,
                f"{_share(facts)} of {count}",
                str(facts.get("num_empty", 0)),
                f"as {facts['output']}",
                str(facts.get("judged")).replace("_", " "),
                _told(facts.get("num_shots")),
                _told(facts.get("transcripts")),
            ]
        )
        notes += published.lines(facts.get("published", {}))
    head = [*HEAD, "the questions' words"]
    return ["## Spoken LM on spoken questions", table(head, rows), bullets(notes)]


def _share(facts: Mapping[str, Any]) -> str:
    value = f"{100 * facts['accuracy']:.1f}%"
    if facts.get("low") is None:
        return value
    return f"{value} [{100 * facts['low']:.1f}, {100 * facts['high']:.1f}]"


def _told(value: object) -> str:
    return "not told" if value is None else str(value)
