"""Rules: each fires on what it is about and is silent on a clean run."""

import dataclasses

import pytest
from fabricated_scores import audio_file, unit_file, whole_run

from espnet_taste.eval.results import build_set
from espnet_taste.eval.rules import describe_rules, find_remarks


def remarks_with(role, kind, file):
    """Replace one score file of the clean run and apply the rules."""
    run = whole_run()
    run[role] = [file if old.kind == kind else old for old in run[role]]
    return find_remarks(build_set("test", run))


def test_a_clean_run_has_no_remark():
    assert find_remarks(build_set("test", whole_run())) == []


def test_low_coverage_marks_the_durations_of_its_row():
    (remark,) = remarks_with("taste", "audio", audio_file("taste", matched_share=0.25))

    assert remark.role == "taste"
    assert "duration_25ms" in remark.metrics
    assert "speaker_similarity" not in remark.metrics
    assert "of the words could be compared" in remark.text


def test_few_identical_transcripts_mark_what_was_measured_on_them():
    file = audio_file("taste")
    few = {"identical_words": 1, "identical_within_25ms": 1}
    items = {key: {**fields, **few} for key, fields in file.items.items()}

    (remark,) = remarks_with("taste", "audio", dataclasses.replace(file, items=items))

    assert remark.metrics == ("duration_25ms_identical",)
    assert remark.text == "only 6.5% of the words stand in identical transcripts"


@pytest.mark.parametrize(
    ("role", "kind", "file"),
    [
        ("units", "audio", audio_file("units", error_share=0.4)),
        ("taste", "units", unit_file("taste", reliance=0.01)),
        ("taste", "audio", audio_file("taste", error_share=0.9)),
    ],
)
def test_a_mark_on_durations_is_on_those_of_all_windows(role, kind, file):
    remark = remarks_with(role, kind, file)[-1]

    assert remark.role == "taste"
    assert {
        *("duration_25ms", "duration_50ms", "duration_100ms", "duration_diff_s"),
        "duration_25ms_identical",
    } <= set(remark.metrics)


def test_a_bad_topline_marks_every_decoded_row():
    remarks = remarks_with("units", "audio", audio_file("units", error_share=0.4))

    assert [r.role for r in remarks] == ["text_only", "no_quantizer", "taste"]
    assert all("wer" in r.metrics and "unit_loss" not in r.metrics for r in remarks)


def test_unintelligible_output_marks_durations_and_speakers():
    (remark,) = remarks_with("taste", "audio", audio_file("taste", error_share=0.9))

    assert "speaker_similarity" in remark.metrics
    assert "hardly a word" in remark.text


@pytest.mark.parametrize(
    ("role", "condition"), [("taste", "codes"), ("text_only_control", "text")]
)
def test_a_decoder_that_ignores_its_condition_marks_its_whole_row(role, condition):
    (remark,) = remarks_with(role, "units", unit_file(role, reliance=0.04))

    assert remark.role == role
    assert {"unit_loss", "unit_top1", "wer"} <= set(remark.metrics)
    assert f"hardly uses its {condition}" in remark.text


def test_a_reliance_whose_interval_holds_zero_is_none():
    file = unit_file("taste")
    items = dict(file.items)
    first = next(iter(items))
    # One utterance carries the whole rise: a draw without it has none.
    for key in items:
        rise = 500.0 if key == first else 0.0
        items[key] = {**items[key], "rise_exchanged_codes_sum": rise}

    (remark,) = remarks_with("taste", "units", dataclasses.replace(file, items=items))

    assert "hardly uses its codes (reliance 0.4" in remark.text


def test_outputs_ended_by_the_bound_mark_what_was_heard():
    file = audio_file("taste")
    counts = {"outputs": 12, "bounded_outputs": 3}

    (remark,) = remarks_with("taste", "audio", dataclasses.replace(file, values=counts))

    assert "3 of 12 outputs" in remark.text
    assert {"wer", "duration_25ms"} <= set(remark.metrics)


def test_every_rule_is_described():
    assert len(describe_rules()) == 5
