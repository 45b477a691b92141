"""Metrics: the declared counts, and gaps that are named."""

import pytest

from espnet_taste.eval.metrics import METRICS, is_measured, ratio_data


def test_names_are_unique_and_directions_known():
    assert all(metric.name == name for name, metric in METRICS.items())
    assert {metric.better for metric in METRICS.values()} <= {"lower", "higher"}
    assert len(METRICS) >= 25


# Counts of one utterance, as scorers write them, and what each score is, by hand.
COUNTS = {
    "units": 40,
    "unit_loss_sum": 100.0,
    "unit_top1": 10,
    "unit_top5": 24,
    "rise_exchanged_text_sum": 4.0,
    "rise_exchanged_codes_sum": 20.0,
    "rise_exchanged_both_sum": 30.0,
    "words": 16,
    "word_errors": 20,
    "word_errors_capped": 12,
    "chars": 64,
    "char_errors": 96,
    "char_errors_capped": 40,
    "matched_words": 8,
    "reference_words": 20,
    "within_25ms": 2,
    "within_50ms": 4,
    "within_100ms": 6,
    "duration_diff_s": 0.4,
    "identical_words": 5,
    "identical_within_25ms": 3,
    "similarity": 0.7,
    "compared": 1,
    "slm_text_loss_sum": 30.0,
    "slm_text_count": 10,
    "text_llm_text_loss_sum": 45.0,
    "text_llm_text_count": 9,
    "slm_alone_text_loss_sum": 36.0,
    "slm_alone_text_count": 8,
    "slm_exchanged_text_loss_sum": 42.0,
    "slm_exchanged_text_count": 7,
    "slm_code_loss_sum": 60.0,
    "slm_code_count": 6,
    "slm_latent_loss_sum": 3.0,
    "slm_exchanged_code_loss_sum": 65.0,
    "slm_exchanged_code_count": 5,
    "slm_latent_error_sum": 11.0,
    "slm_latent_spread_sum": 22.0,
    "slm_exchanged_latent_error_sum": 18.0,
    "slm_exchanged_latent_spread_sum": 20.0,
    "slm_code_hits": 6,
    "slm_code_slots": 24,
    "unigram_loss_sum": 96.0,
    "unigram_words": 4,
    "unigram_hits": 2,
    "unigram_slots": 16,
}
BY_HAND = {
    "unit_loss": 2.5,
    "unit_top1": 0.25,
    "unit_top5": 0.6,
    "reliance_text": 0.1,
    "reliance_codes": 0.5,
    "reliance_both": 0.75,
    "wer": 1.25,
    "wer_capped": 0.75,
    "cer": 1.5,
    "cer_capped": 0.625,
    "duration_25ms": 0.25,
    "duration_50ms": 0.5,
    "duration_100ms": 0.75,
    "duration_diff_s": 0.05,
    "duration_coverage": 0.4,
    "duration_25ms_identical": 0.6,
    "duration_coverage_identical": 0.25,
    "speaker_similarity": 0.7,
    "slm_text_loss": 3.0,
    "text_llm_loss": 5.0,
    "slm_alone_text_loss": 4.5,
    "slm_exchanged_text_loss": 6.0,
    "slm_code_loss": 10.0,
    "slm_exchanged_code_loss": 13.0,
    "slm_latent_loss": 0.5,
    "slm_latent_unexplained": 0.5,
    "slm_exchanged_latent_unexplained": 0.9,
    "slm_code_accuracy": 0.25,
    "unigram_code_loss": 24.0,
    "unigram_code_accuracy": 0.125,
}


def test_every_score_by_hand():
    """One utterance twice, so that sums are divided and not means averaged."""
    found = {}
    for name, metric in METRICS.items():
        data = ratio_data(metric, {"a": COUNTS, "b": COUNTS}, "taste")
        found[name] = data.numerators.sum() / data.denominators.sum()

    assert found == pytest.approx(BY_HAND)


def test_counts_come_in_sorted_order():
    items = {"b": {"word_errors": 2, "words": 4}, "a": {"word_errors": 1, "words": 9}}

    data = ratio_data(METRICS["wer"], items, "taste")

    assert data.numerators.tolist() == [1.0, 2.0]
    assert data.denominators.tolist() == [9.0, 4.0]


def test_a_gap_is_named_by_system_metric_and_utterance():
    items = {"a": {"word_errors": 1, "words": 3}, "b": {"words": 3}}

    assert is_measured(METRICS["wer"], items)
    assert not is_measured(METRICS["cer"], items)
    with pytest.raises(
        ValueError, match=r"system 'taste', metric 'wer': no word_errors .*\['b'\]"
    ):
        ratio_data(METRICS["wer"], items, "taste")
