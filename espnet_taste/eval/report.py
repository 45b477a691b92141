"""Write the results page. Nothing on it is typed by hand.

Every table is a list of rows of cells; a cell is a score with its interval, marked
where a rule (``rules``) says that it must not be read at face value.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from espnet_taste.eval.answer_page import render_answers
from espnet_taste.eval.bootstrap import LEVEL, RESAMPLES
from espnet_taste.eval.cells import (
    NOTHING,
    Marks,
    bullets,
    format_bitrate,
    format_score,
    table,
)
from espnet_taste.eval.continuation_page import render_continuations
from espnet_taste.eval.metrics import METRICS
from espnet_taste.eval.pair_page import render_pairs
from espnet_taste.eval.results import Difference, Results, Row, Score, SetResults
from espnet_taste.eval.roles import PAIR_METRICS, PAIRS, ROLES, SLM_PAIRS
from espnet_taste.eval.rules import describe_rules, find_remarks
from espnet_taste.eval.slm_scores import perplexity

UNIT_COLUMNS = (
    "unit_loss",
    "unit_top1",
    "unit_top5",
    "reliance_text",
    "reliance_codes",
)
DETAIL_COLUMNS = (
    "wer_capped",
    "cer_capped",
    "duration_50ms",
    "duration_100ms",
    "duration_diff_s",
    "duration_25ms_identical",
    "duration_coverage_identical",
    "reliance_both",
)
SLM_ROWS = (
    "slm_text_loss",
    "text_llm_loss",
    "slm_alone_text_loss",
    "slm_exchanged_text_loss",
    "slm_code_loss",
    "unigram_code_loss",
    "slm_exchanged_code_loss",
    "slm_latent_loss",
    "slm_latent_unexplained",
    "slm_exchanged_latent_unexplained",
    "slm_code_accuracy",
    "unigram_code_accuracy",
)
# The claim of the paper: each is better than the one before. The control of a row
# stands for it where there is one that was measured.
ORDERING = (("text_only", "taste"), ("taste", "no_quantizer"))
ORDERED_METRICS = ("unit_loss", "unit_top1", "wer")
CONTROLS = {
    "text_only": "text_only_control",
    "no_quantizer": "no_quantizer_control",
}
# Of fewer utterances an interval lies on one side of 0 too often by chance: of two, in
# every second case.
MIN_UTTERANCES = 10


def render_page(results: Results) -> str:
    """Return the whole page as Markdown."""
    parts = [
        "# Results",
        "Written by `python -m espnet_taste.bin.report`; do not edit. "
        f"Brackets hold {LEVEL:.0%} bootstrap intervals over utterances "
        f"({RESAMPLES} resamples). A dagger marks a number that is **not meaningful**; "
        "its reason stands below the table.",
    ]
    for test_set in results.sets:
        parts += render_set(test_set)
    parts += render_pairs(results.pairs)
    parts += render_continuations(results.continuations)
    parts += render_answers(results.answers)
    parts += ["## Excluded and skipped", *_exclusions(results)]
    parts += ["## How it was measured", bullets(method_notes(results))]
    parts += ["## Environment", _environment(results.metadata)]
    return "\n\n".join(parts)


def render_set(results: SetResults) -> list[str]:
    """Return the sections of one test set."""
    rows = [row for row in results.rows if row.role != "slm"]
    remarks = find_remarks(results)
    parts = [
        f"## Test set `{results.name}`",
        _main_table(rows, Marks(remarks)),
        bullets(Marks(remarks).legend()),
        "### Ordering",
        bullets(ordering_verdicts(results)),
        "### Paired differences",
        _difference_table(results.differences),
        "### Details of the free-running scores",
        _detail_table(rows, Marks(remarks)),
        "### Streams",
        _stream_table(rows),
    ]
    spoken_lm = results.row("slm")
    parts.append("### Spoken LM")
    if spoken_lm is None:
        parts.append("No spoken LM was scored in this run.")
    else:
        parts += [_slm_table(spoken_lm), _slm_differences(results.differences)]
    return [part for part in parts if part]


def ordering_verdicts(results: SetResults) -> list[str]:
    """Say for each step of the claimed ordering whether the intervals bear it out."""
    lines = []
    marks = Marks(find_remarks(results))
    for name in ORDERED_METRICS:
        for step in ORDERING:
            worse, better = (_stand_in(results, role, name) for role in step)
            marked = [role for role in (better, worse) if marks.of(role, name)]
            doubts = [f"{ROLES[r].label}{marks.of(r, name)}" for r in marked]
            doubt = f"; not meaningful: {', '.join(doubts)}" if doubts else ""
            lines.append(_verdict(results, name, worse, better) + doubt)
    missing = [role for role, control in CONTROLS.items() if not results.row(control)]
    if missing:
        lines.append(
            f"No control run for: {', '.join(ROLES[role].label for role in missing)}. "
            "Rows that were not trained equally long are not a fair comparison."
        )
    return lines


def _stand_in(results: SetResults, role: str, metric: str) -> str:
    """Return the control of a role if it was measured, else the role."""
    control = CONTROLS.get(role)
    row = results.row(control) if control else None
    return control if row is not None and metric in row.scores else role


def _verdict(results: SetResults, name: str, worse: str, better: str) -> str:
    """Judge one step of the ordering on one metric."""
    metric = METRICS[name]
    difference = results.difference(name, better, worse)
    if difference is None or difference.score.value is None:
        return f"{metric.label}: {better} and {worse} were not compared."
    score = difference.score
    gain = -score.value if metric.better == "lower" else score.value
    if not score.excludes_zero:
        outcome = "**undecided** (the interval holds 0)"
    elif score.num_items < MIN_UTTERANCES:
        outcome = f"**undecided** ({score.num_items} utterances are too few)"
    else:
        outcome = "**yes**" if gain > 0 else "**no, the other way round**"
    cell = format_score(score, metric, signed=True)
    return (
        f"{metric.label}: {ROLES[better].label} better than {ROLES[worse].label}? "
        f"{outcome}, {cell}"
    )


def _decides(score: Score) -> bool:
    """Tell whether the interval of a difference says which one is better."""
    return score.excludes_zero and score.num_items >= MIN_UTTERANCES


def _main_table(rows: Sequence[Row], marks: Marks) -> str:
    """Return the table with one row per system."""

    def cell(row: Row, name: str) -> str:
        return _marked(row, name, marks)

    def duration(row: Row) -> str:
        coverage = row.scores.get("duration_coverage")
        if coverage is None or coverage.value is None:
            return format_score(coverage, METRICS["duration_coverage"])
        return f"{cell(row, 'duration_25ms')} @ {coverage.value:.1%}"

    head = ["system", *(METRICS[name].label for name in UNIT_COLUMNS), "WER", "CER"]
    head += ["duration within 25 ms @ coverage", "speaker similarity"]
    head += ["bits/s as used (nominal)", "utterances"]
    return table(
        head,
        [
            [
                ROLES[row.role].label,
                *(cell(row, name) for name in (*UNIT_COLUMNS, "wer", "cer")),
                duration(row),
                cell(row, "speaker_similarity"),
                format_bitrate(row),
                _counts(row),
            ]
            for row in rows
        ],
    )


def _marked(row: Row, name: str, marks: Marks) -> str:
    """Return the cell of a score with its daggers; without a number it has none."""
    score = row.scores.get(name)
    is_number = score is not None and score.value is not None
    mark = marks.of(row.role, name) if is_number else ""
    return format_score(score, METRICS[name]) + mark


def _counts(row: Row) -> str:
    """Return the number of utterances behind a row's scores."""
    counts = sorted({score.num_items for score in row.scores.values()})
    return " / ".join(map(str, counts))


def _detail_table(rows: Sequence[Row], marks: Marks) -> str:
    """Return the secondary scores, one row per system that has any."""
    return table(
        ["system", *(METRICS[name].label for name in DETAIL_COLUMNS)],
        [
            [
                ROLES[row.role].label,
                *(_marked(row, name, marks) for name in DETAIL_COLUMNS),
            ]
            for row in rows
            if any(name in row.scores for name in DETAIL_COLUMNS)
        ],
    )


def _stream_table(rows: Sequence[Row]) -> str:
    """Return what the rates of the discrete streams are made of."""
    lines = []
    for row in rows:
        for stream in ("unit", "code", "text"):
            # All rows read the same text; once is enough.
            repeated = stream == "text" and row.role != "text_only"
            if repeated or f"{stream}_steps" not in row.values:
                continue
            figures = {
                name: row.values[f"{stream}_{name}"]
                for name in ("steps", "seconds", "nominal_bits", "used_bits")
            }
            lines.append(
                [
                    ROLES[row.role].label,
                    {"unit": "units", "code": "word codes"}.get(stream, "characters"),
                    f"{figures['steps']:.0f}",
                    f"{figures['steps'] / figures['seconds']:.2f}",
                    f"{figures['used_bits']:.2f} ({figures['nominal_bits']:.2f})",
                    f"{row.values[f'{stream}_used_entries']:.0f}",
                ]
            )
    head = ["system", "stream", "steps", "steps/s", "bits/step as used (nominal)"]
    return table([*head, "entries seen, all codebooks"], lines)


def _difference_table(differences: Sequence[Difference]) -> str:
    """Return first minus second for every pair; bold where the interval excludes 0."""
    found = {(d.first, d.second, d.metric): d.score for d in differences}

    def cell(first: str, second: str, name: str) -> str:
        score = found.get((first, second, name))
        text = format_score(score, METRICS[name], signed=True)
        return f"**{text}**" if score is not None and _decides(score) else text

    caption = (
        "First minus second on the same utterances; bold: the interval excludes 0 "
        f"and is of {MIN_UTTERANCES} utterances or more. "
        "What is not meaningful in a row is so in its differences."
    )
    body = table(
        ["first", "second", *(METRICS[name].label for name in PAIR_METRICS)],
        [
            [
                ROLES[first].label,
                ROLES[second].label,
                *(cell(first, second, name) for name in PAIR_METRICS),
            ]
            for first, second in PAIRS
            if (first, second, "unit_loss") in found
        ],
    )
    return f"{caption}\n\n{body}"


def _slm_table(row: Row) -> str:
    """Return the spoken LM's scores; text losses also as perplexity."""
    lines = []
    for name in SLM_ROWS:
        score = row.scores.get(name)
        if score is None:
            continue
        cells = [METRICS[name].label, format_score(score, METRICS[name])]
        is_text = "text" in METRICS[name].numerator
        cells.append(f"{perplexity(score.value):.2f}" if is_text else NOTHING)
        lines.append([*cells, str(score.num_items)])
    return table(["score", "value", "perplexity", "utterances"], lines)


def _slm_differences(differences: Sequence[Difference]) -> str:
    """Return the spoken LM against its baselines."""
    found = {(d.first, d.second): d.score for d in differences}
    lines = [
        f"{METRICS[first].label} minus {METRICS[second].label}: "
        f"{format_score(found[first, second], METRICS[first], signed=True)}"
        for first, second in SLM_PAIRS
        if (first, second) in found
    ]
    return bullets(lines)


def _exclusions(results: Results) -> list[str]:
    """Return what was left out before scoring and noted while scoring."""
    excluded = [
        [name, step, str(summary["kept"]), _reasons(summary["excluded"])]
        for name, steps in results.exclusions.items()
        for step, summary in steps.items()
    ]
    noted = [
        [test_set.name, ROLES[row.role].label, _reasons(row.skipped)]
        for test_set in results.sets
        for row in test_set.rows
    ]
    return [
        (
            table(["data set", "step", "kept", "excluded"], excluded)
            if excluded
            else "No exclusion summary was given."
        ),
        "Noted while scoring (these utterances are counted in the scores, as worst "
        "results, unless the reason says otherwise):",
        table(["test set", "system", "utterances per reason"], noted),
    ]


def _reasons(counts: Mapping[str, Any]) -> str:
    """Return reasons with their counts, leaving out none but the zeros."""
    parts = [f"{reason} {count}" for reason, count in sorted(counts.items()) if count]
    return ", ".join(parts) or "none"


def method_notes(results: Results) -> list[str]:
    """Return how to read the columns."""
    judges = _distinct(results, "judge")
    normalisers = _distinct(results, "normaliser")
    return [
        "Unit loss (nats per unit), top-1 and top-5 are teacher-forced: the model sees "
        "the true units before each one.",
        "Reliance is the rise of that loss when text or codes are another utterance's. "
        "It shows that a condition is used, not that it is used well.",
        "Counts are pooled over utterances and divided once. A missing hypothesis "
        "stops the run; an empty one is all deletions. WER may exceed 100 %; the "
        "capped rates count at most the reference length of each utterance.",
        f"Judge: {judges}. It heard the original, too: that row is its own error.",
        f"Text normaliser: {normalisers} (rules in `espnet_taste/eval/normalise.py`). "
        "It knows no language: another spelling ('mister', 'Mr.') is an error, in the "
        "original's row as in all others.",
        "Durations compare the judge's word times (20 ms steps) in both signals, on "
        "words that are equal and aligned; coverage is their share of the original's "
        "words. 'Identical transcripts only' is the released evaluation's rule.",
        "Speaker similarity is the cosine of speaker embeddings "
        f"({_distinct(results, 'speaker_encoder')}). If the same encoder conditions "
        "the decoder, it is a friendly judge; and the decoder's voice is that of the "
        "very utterance that its audio is compared with.",
        "Bits per second as used are order-0 entropies, codebook by codebook, which "
        "small sets make too low; nominal is log2 of the sizes. Text is counted in "
        "characters. The speaker vector is not counted.",
        "Audio is made and judged of some utterances, spread evenly over the set: the "
        "smallest number in a row's last column, a larger one for original and units.",
        "Intervals and paired differences resample the test utterances only: they hold "
        "the variance neither between training runs nor between speakers, of whom "
        "utterances are taken as independent. Where all or none of the items count, "
        "resampling has nothing to vary, and an interval without width is no "
        f"certainty. Those of under {MIN_UTTERANCES} utterances decide nothing.",
        "Not meaningful by rule: " + "; ".join(describe_rules()) + ".",
    ]


def _distinct(results: Results, name: str) -> str:
    """Return the distinct values of a metadata field over all rows."""
    values = {
        row.metadata[name]
        for test_set in results.sets
        for row in test_set.rows
        if name in row.metadata
    }
    return "; ".join(f"`{value}`" for value in sorted(values)) or "not recorded"


def _environment(metadata: Mapping[str, str]) -> str:
    """Return the metadata as a table."""
    return table(["what", "value"], [[k, v] for k, v in metadata.items()])
