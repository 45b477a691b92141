"""Every score as a ratio of pooled counts: which field is divided by which.

A score file holds counts per utterance. A metric names the two counts that make it,
so how a number is reduced is declared here and guessed nowhere. The same declaration
gives the value, its bootstrap interval, and the paired difference of two systems.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from espnet_taste.eval.bootstrap import RatioData

Items = Mapping[str, Mapping[str, float]]  # utterance id -> field -> count


@dataclass(frozen=True)
class Metric:
    """One pooled ratio."""

    name: str
    label: str  # column head of the report
    numerator: str  # field of the items
    denominator: str
    better: str  # "lower", "higher" or "" (no direction of its own)
    digits: int = 3  # decimals in the report
    percent: bool = False  # shown times 100
    undefined: str = ""  # why there may be nothing to divide by; "" means never


def _metric(name: str, label: str, fields: str, better: str, **show) -> Metric:
    """Spell a metric as ``numerator / denominator``."""
    numerator, denominator = fields.split(" / ")
    return Metric(name, label, numerator, denominator, better, **show)


PERCENT = {"digits": 1, "percent": True}
NO_MATCH = {"undefined": "no word was recognised in both signals"}
NO_REFERENCE = {"undefined": "the judge heard no word in the originals"}
NO_IDENTICAL = {"undefined": "no two transcripts are identical"}
NO_OUTPUT = {"undefined": "no output had audio to compare"}

_ALL = (
    _metric("unit_loss", "unit loss", "unit_loss_sum / units", "lower"),
    _metric("unit_top1", "top-1", "unit_top1 / units", "higher", **PERCENT),
    _metric("unit_top5", "top-5", "unit_top5 / units", "higher", **PERCENT),
    _metric(
        "reliance_text",
        "reliance on text",
        "rise_exchanged_text_sum / units",
        "higher",
    ),
    _metric(
        "reliance_codes",
        "reliance on codes",
        "rise_exchanged_codes_sum / units",
        "higher",
    ),
    _metric(
        "reliance_both",
        "reliance on both",
        "rise_exchanged_both_sum / units",
        "higher",
    ),
    _metric("wer", "WER", "word_errors / words", "lower", **PERCENT),
    _metric(
        "wer_capped", "WER capped", "word_errors_capped / words", "lower", **PERCENT
    ),
    _metric("cer", "CER", "char_errors / chars", "lower", **PERCENT),
    _metric(
        "cer_capped", "CER capped", "char_errors_capped / chars", "lower", **PERCENT
    ),
    _metric(
        "duration_25ms",
        "duration within 25 ms",
        "within_25ms / matched_words",
        "higher",
        **PERCENT,
        **NO_MATCH,
    ),
    _metric(
        "duration_50ms",
        "duration within 50 ms",
        "within_50ms / matched_words",
        "higher",
        **PERCENT,
        **NO_MATCH,
    ),
    _metric(
        "duration_100ms",
        "duration within 100 ms",
        "within_100ms / matched_words",
        "higher",
        **PERCENT,
        **NO_MATCH,
    ),
    _metric(
        "duration_diff_s",
        "duration difference (s)",
        "duration_diff_s / matched_words",
        "lower",
        **NO_MATCH,
    ),
    _metric(
        "duration_coverage",
        "duration coverage",
        "matched_words / reference_words",
        "higher",
        **PERCENT,
        **NO_REFERENCE,
    ),
    _metric(
        "duration_25ms_identical",
        "duration within 25 ms, identical transcripts only",
        "identical_within_25ms / identical_words",
        "higher",
        **PERCENT,
        **NO_IDENTICAL,
    ),
    _metric(
        "duration_coverage_identical",
        "coverage of identical transcripts",
        "identical_words / reference_words",
        "higher",
        **PERCENT,
        **NO_REFERENCE,
    ),
    _metric(
        "speaker_similarity",
        "speaker similarity",
        "similarity / compared",
        "higher",
        **NO_OUTPUT,
    ),
    _metric(
        "slm_text_loss",
        "text loss (nats/token)",
        "slm_text_loss_sum / slm_text_count",
        "lower",
    ),
    _metric(
        "text_llm_loss",
        "text loss of the LLM without speech",
        "text_llm_text_loss_sum / text_llm_text_count",
        "lower",
    ),
    _metric(
        "slm_alone_text_loss",
        "text loss of the adapted LLM without speech",
        "slm_alone_text_loss_sum / slm_alone_text_count",
        "lower",
    ),
    _metric(
        "slm_exchanged_text_loss",
        "text loss with exchanged codes",
        "slm_exchanged_text_loss_sum / slm_exchanged_text_count",
        "lower",
    ),
    _metric(
        "slm_code_loss",
        "code loss (nats/word, all codebooks)",
        "slm_code_loss_sum / slm_code_count",
        "lower",
    ),
    _metric(
        "slm_exchanged_code_loss",
        "code loss when the codes read are exchanged",
        "slm_exchanged_code_loss_sum / slm_exchanged_code_count",
        "lower",
    ),
    _metric(
        "slm_latent_loss",
        "latent loss (as trained, per word)",
        "slm_latent_loss_sum / slm_code_count",
        "lower",
    ),
    _metric(
        "slm_latent_unexplained",
        "squared error of the latent, of that of the training mean",
        "slm_latent_error_sum / slm_latent_spread_sum",
        "lower",
        **PERCENT,
    ),
    _metric(
        "slm_exchanged_latent_unexplained",
        "the same when the codes read are exchanged",
        "slm_exchanged_latent_error_sum / slm_exchanged_latent_spread_sum",
        "lower",
        **PERCENT,
    ),
    _metric(
        "slm_code_accuracy",
        "code accuracy",
        "slm_code_hits / slm_code_slots",
        "higher",
        **PERCENT,
    ),
    _metric(
        "unigram_code_loss",
        "unigram code loss (nats/word, all codebooks)",
        "unigram_loss_sum / unigram_words",
        "lower",
    ),
    _metric(
        "unigram_code_accuracy",
        "unigram code accuracy",
        "unigram_hits / unigram_slots",
        "higher",
        **PERCENT,
    ),
)

METRICS = {metric.name: metric for metric in _ALL}


def is_measured(metric: Metric, items: Items) -> bool:
    """Say whether any utterance carries the metric's counts."""
    return any(metric.numerator in fields for fields in items.values())


def ratio_data(metric: Metric, items: Items, system: str) -> RatioData:
    """Collect a metric's counts, utterances in sorted order.

    Args:
        metric: The metric.
        items: Counts per utterance.
        system: Name for messages.

    Raises:
        ValueError: If an utterance lacks a count; names system, metric and utterance.
    """
    columns = []
    for field in (metric.numerator, metric.denominator):
        missing = [key for key in sorted(items) if field not in items[key]]
        if missing:
            raise ValueError(
                f"system '{system}', metric '{metric.name}': no {field} for "
                f"{len(missing)} of {len(items)} utterances: {missing[:10]}"
            )
        columns.append(np.array([items[key][field] for key in sorted(items)]))
    return RatioData(*(column.astype(np.float64) for column in columns))
