"""When a number does not mean what its column says.

Every rule looks at one test set and yields remarks: which cells of which row, and
why. The page marks those cells; nobody has to remember to. The bounds are ours, set
before the numbers were seen, and stand in the page's method notes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from espnet_taste.eval.results import Row, SetResults
from espnet_taste.eval.roles import ERRORS, RELIANCE, UNIT

MIN_COVERAGE = 0.3  # of the original's words, for duration scores
MAX_TOPLINE_RATIO = 2.0  # topline WER over the original's
MAX_CAPPED_WER = 0.8  # above it there is hardly any speech to judge
MIN_RELIANCE = 0.05  # nats per unit
MAX_BOUNDED = 0.1  # share of outputs that only a length bound ended

IDENTICAL = ("duration_25ms_identical",)  # has a coverage of its own
DURATIONS = (
    "duration_25ms",
    "duration_50ms",
    "duration_100ms",
    "duration_diff_s",
    *IDENTICAL,
)
HEARD = (*ERRORS, *DURATIONS, "speaker_similarity")
# Rows whose audio passes through units and vocoder.
DECODED = (
    "text_only",
    "text_only_control",
    "no_quantizer",
    "no_quantizer_control",
    "taste",
)
# What a row stands for: without this reliance it is not that row.
CONDITION = {
    "text_only": "reliance_text",
    "text_only_control": "reliance_text",
    "no_quantizer": "reliance_codes",
    "no_quantizer_control": "reliance_codes",
    "taste": "reliance_codes",
}


@dataclass(frozen=True)
class Remark:
    """Some cells of one row that must not be read at face value."""

    role: str
    metrics: tuple[str, ...]
    text: str


def find_remarks(results: SetResults) -> list[Remark]:
    """Apply every rule to the rows of one test set."""
    remarks = list(_topline(results))
    for row in results.rows:
        for rule in (_coverage, _unintelligible, _reliance, _bounded):
            remarks += rule(row)
    return remarks


def describe_rules() -> list[str]:
    """Return the rules as sentences for the page."""
    return [
        f"duration scores: coverage under {MIN_COVERAGE:.0%}",
        "WER, CER, durations and speaker similarity of decoded rows: the topline's WER "
        f"is more than {MAX_TOPLINE_RATIO:g} times the original's",
        f"durations and speaker similarity: capped WER over {MAX_CAPPED_WER:.0%}",
        "everything of a row: its reliance on what defines it (text for text-only "
        f"rows, codes for the others) is under {MIN_RELIANCE:g} nats per unit, or its "
        "interval reaches 0",
        f"WER, CER and durations: more than {MAX_BOUNDED:.0%} of the outputs were "
        "ended by the length bound",
    ]


def _topline(results: SetResults) -> Iterator[Remark]:
    """Units and vocoder that lose the words hide what the rows above them lose."""
    original, units = results.row("original"), results.row("units")
    if original is None or units is None:
        return
    base, topline = original.scores["wer"].value, units.scores["wer"].value
    if topline <= MAX_TOPLINE_RATIO * base:
        return
    text = (
        f"the topline's WER ({topline:.1%}) is more than {MAX_TOPLINE_RATIO:g} times "
        f"the original's ({base:.1%}): units and vocoder, not the model, decide"
    )
    for row in results.rows:
        if row.role in DECODED and "wer" in row.scores:
            yield Remark(row.role, HEARD, text)


def _coverage(row: Row) -> Iterator[Remark]:
    """Few compared words are the easy ones."""
    values = {name: score.value for name, score in row.scores.items()}
    compared = tuple(name for name in DURATIONS if name not in IDENTICAL)
    for coverage, names, what in (
        ("duration_coverage", compared, "could be compared"),
        ("duration_coverage_identical", IDENTICAL, "stand in identical transcripts"),
    ):
        share = values.get(coverage)
        is_measured = any(values.get(name) is not None for name in names)
        if share is not None and share < MIN_COVERAGE and is_measured:
            text = f"only {share:.1%} of the words {what}"
            yield Remark(row.role, names, text)


def _unintelligible(row: Row) -> Iterator[Remark]:
    """A judge that hears no words has none to time."""
    capped = row.scores.get("wer_capped")
    if capped is not None and capped.value > MAX_CAPPED_WER:
        text = f"hardly a word was recognised (capped WER {capped.value:.1%})"
        yield Remark(row.role, (*DURATIONS, "speaker_similarity"), text)


def _reliance(row: Row) -> Iterator[Remark]:
    """A decoder that ignores its condition says nothing about it."""
    name = CONDITION.get(row.role)
    score = row.scores.get(name) if name else None
    if score is None or score.value is None:
        return
    uncertain = score.low is None or score.low <= 0
    if score.value < MIN_RELIANCE or uncertain:
        what = "text" if name == RELIANCE[0] else "codes"
        text = (
            f"the decoder hardly uses its {what} (reliance {score.value:.3f} nats per "
            "unit): the row says nothing about them"
        )
        yield Remark(row.role, (*UNIT, *HEARD), text)


def _bounded(row: Row) -> Iterator[Remark]:
    """An output cut off by a bound was not ended by the model."""
    ended, total = row.values.get("bounded_outputs"), row.values.get("outputs")
    if total and ended / total > MAX_BOUNDED:
        text = (
            f"{ended:.0f} of {total:.0f} outputs were ended by the length bound, "
            "not by the model"
        )
        yield Remark(row.role, (*ERRORS, *DURATIONS), text)
