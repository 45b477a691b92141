"""Results: every required cell is there, or the run stops and says which is not."""

import dataclasses
import json

import pytest
from fabricated_scores import KEYS, audio_file, unit_file, whole_run

from espnet_taste.eval.results import Results, Score, build_set, merge_items


def without(file, field, keys=KEYS):
    """Remove a field of some utterances from a score file."""
    items = {
        key: {k: v for k, v in fields.items() if k != field or key not in keys}
        for key, fields in file.items.items()
    }
    return dataclasses.replace(file, items=items)


def test_rows_keep_the_declared_order():
    run = whole_run()
    shuffled = {role: run[role] for role in reversed(run)}

    rows = build_set("test", shuffled).rows

    assert [row.role for row in rows] == [
        "original",
        "units",
        "text_only",
        "text_only_control",
        "no_quantizer",
        "no_quantizer_control",
        "taste",
        "slm",
    ]


def test_a_score_is_the_pooled_ratio():
    run = whole_run()
    items = run["taste"][0].items.values()
    expected = sum(i["unit_loss_sum"] for i in items) / sum(i["units"] for i in items)

    score = build_set("test", run).row("taste").scores["unit_loss"]

    assert score.value == pytest.approx(expected)
    assert score.low < score.value < score.high
    assert score.num_items == len(KEYS)


def test_a_difference_is_first_minus_second():
    results = build_set("test", whole_run())

    found = results.difference("unit_loss", "taste", "text_only_control")

    scores = [results.row(r).scores["unit_loss"] for r in (found.first, found.second)]
    assert found.score.value == pytest.approx(scores[0].value - scores[1].value)
    assert found.score.excludes_zero


def test_the_seed_moves_the_interval_only():
    first, second = (build_set("test", whole_run(), seed=s) for s in (1, 2))
    one, two = (r.row("taste").scores["unit_loss"] for r in (first, second))

    assert one.value == two.value
    assert (one.low, one.high) != (two.low, two.high)


@pytest.mark.parametrize("role", ["original", "units", "text_only", "no_quantizer",
                                  "taste"])  # fmt: skip
def test_a_missing_row_is_named(role):
    run = whole_run()
    del run[role]
    with pytest.raises(ValueError, match=rf"no scores for the rows \['{role}'\]"):
        build_set("test", run)


def test_optional_rows_may_be_absent():
    run = whole_run()
    for role in ("slm", "text_only_control", "no_quantizer_control"):
        del run[role]

    results = build_set("test", run)

    assert results.row("slm") is None
    assert results.difference("unit_loss", "taste", "text_only") is not None


def test_a_missing_kind_is_named():
    run = whole_run()
    run["taste"] = run["taste"][:1]
    with pytest.raises(
        ValueError, match=r"'taste' .*no scores of kind \['audio', 'codes'\]"
    ):
        build_set("test", run)


@pytest.mark.parametrize(
    ("role", "field", "metric"),
    [
        ("taste", "rise_exchanged_codes_sum", "reliance_codes"),
        ("text_only_control", "rise_exchanged_text_sum", "reliance_text"),
        ("no_quantizer", "unit_top5", "unit_top5"),
    ],
)
def test_a_required_metric_nobody_measured_is_named(role, field, metric):
    run = whole_run()
    run[role] = [without(file, field) for file in run[role]]
    with pytest.raises(ValueError, match=f"system '{role}' .*no score '{metric}'"):
        build_set("test", run)


def test_a_single_missing_utterance_is_named():
    run = whole_run()
    run["taste"][0] = without(run["taste"][0], "unit_top1", keys=[KEYS[3]])
    with pytest.raises(
        ValueError, match=rf"'taste', metric 'unit_top1': .*\['{KEYS[3]}'\]"
    ):
        build_set("test", run)


def test_different_utterances_are_not_compared():
    run = whole_run()
    file = run["taste"][0]
    items = {key: fields for key, fields in file.items.items() if key != KEYS[0]}
    run["taste"][0] = dataclasses.replace(file, items=items)
    with pytest.raises(ValueError, match=rf"different utterances: \['{KEYS[0]}'\]"):
        build_set("test", run)


def test_audio_may_be_scored_on_fewer_utterances_than_units():
    """Judging is slow; a key file may restrict it, for every system alike."""
    run = whole_run()
    for files in run.values():
        for number, file in enumerate(files):
            if file.kind == "audio":
                items = {key: file.items[key] for key in KEYS[:5]}
                files[number] = dataclasses.replace(file, items=items)

    row = build_set("test", run).row("taste")

    assert row.scores["wer"].num_items == 5
    assert row.scores["unit_loss"].num_items == len(KEYS)


def test_nothing_matched_is_a_reason_and_not_a_number():
    run = whole_run()
    run["taste"][1] = audio_file("taste", matched_share=0.0)

    score = build_set("test", run).row("taste").scores["duration_25ms"]

    assert score.value is None
    assert score.note == "no word was recognised in both signals"


def test_a_reference_without_a_word_stops_the_run():
    run = whole_run()
    file = run["taste"][1]
    items = {key: {**fields, "words": 0} for key, fields in file.items.items()}
    run["taste"][1] = dataclasses.replace(file, items=items)
    with pytest.raises(ValueError, match="system 'taste', metric 'wer': .*undefined"):
        build_set("test", run)


def test_a_spoken_lm_needs_a_loss_of_its_codes():
    run = whole_run()
    run["slm"] = [without(run["slm"][0], "slm_latent_loss_sum")]
    with pytest.raises(ValueError, match="no score of .*slm_latent_loss"):
        build_set("test", run)


def test_the_rate_of_the_text_belongs_to_every_row_that_reads_it():
    run = whole_run()
    run["text_only"] = run["text_only"][:2]

    results = build_set("test", run)

    for role in ("text_only", "no_quantizer", "taste"):
        assert results.row(role).values["text_used_bps"] == 61.5
    assert "text_used_bps" not in results.row("units").values
    file = run["taste"][2]
    values = {**file.values, "text_used_bps": 1.0}
    run["taste"][2] = dataclasses.replace(file, values=values)
    with pytest.raises(ValueError, match="transcripts have different rates"):
        build_set("test", run)


def test_unknown_roles_and_double_counts_are_refused():
    with pytest.raises(ValueError, match=r"unknown roles \['tast'\]"):
        build_set("test", {"tast": []})
    twice = [unit_file("taste"), unit_file("taste")]
    with pytest.raises(ValueError, match="two score files count .*unit_loss_sum"):
        merge_items(twice)


def test_a_cell_without_a_number_needs_its_reason():
    with pytest.raises(ValueError, match="needs a note"):
        Score(None)
    with pytest.raises(ValueError, match="expected a finite score, got nan"):
        Score(float("nan"))


def test_results_are_json():
    results = Results({"seed": "1"}, (build_set("test", whole_run()),))

    content = json.loads(json.dumps(results.to_json(), allow_nan=False))

    assert content["schema"] == "espnet_taste.results/1"
    taste = next(r for r in content["sets"][0]["rows"] if r["role"] == "taste")
    assert set(taste["scores"]["wer"]) == {"value", "low", "high", "num_items", "note"}
