"""Spoken-LM scores: fields by condition, and the unigram by hand."""

import json
import math

import numpy as np
import pytest

from espnet_taste.eval.slm_scores import UnigramModel, perplexity, read_slm_scores


def row(key="a", condition="matched", **changes):
    fields = {"text_loss_sum": 6.0, "text_count": 3}
    if condition == "matched":
        fields |= {"code_count": 4, "code_hits": [1, 2], "latent_loss_sum": 0.5}
    return {"key": key, "condition": condition, **fields, **changes}


def write(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_conditions_become_fields(tmp_path):
    path = write(tmp_path / "s.jsonl", row(code_loss_sums=[2.0, 3.0]),
                 row(condition="text_llm", text_loss_sum=9.0))  # fmt: skip

    items = read_slm_scores(path, ["a"])

    assert items["a"] == {
        "slm_text_loss_sum": 6.0,
        "slm_text_count": 3.0,
        "slm_code_count": 4.0,
        "slm_code_slots": 8.0,
        "slm_code_hits": 3.0,
        "slm_code_loss_sum": 5.0,
        "slm_latent_loss_sum": 0.5,
        "text_llm_text_loss_sum": 9.0,
        "text_llm_text_count": 3.0,
    }


def test_errors_of_a_latent_are_given_for_both_codes_that_it_may_read(tmp_path):
    sums = {"latent_error_sum": 3.0, "latent_spread_sum": 4.0}
    coded = {"code_count": 4, "code_hits": [0, 1], "latent_error_sum": 3.5}
    path = write(tmp_path / "s.jsonl", row(**sums),
                 row(condition="exchanged_codes", **coded))  # fmt: skip

    fields = read_slm_scores(path, ["a"])["a"]

    assert fields["slm_latent_error_sum"] == 3.0
    assert fields["slm_latent_spread_sum"] == 4.0
    assert fields["slm_exchanged_latent_error_sum"] == 3.5
    assert fields["slm_exchanged_code_hits"] == 1.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(text_count=0)], "text_count must be a whole number >= 1"),
        ([row(code_hits=[1, 5])], r"code_hits must be in 0..4"),
        ([row(code_hits=[])], "code_hits must be a list"),
        ([row(code_loss_sums=[1.0, math.nan])], r"'a' has code_loss_sums\[1\] nan"),
        ([row(), row()], "'a' is scored twice as matched"),
        ([row(), row(condition="text_llm", key="b")], "no score for 1 utterances"),
        ([row(condition="text_llm")], "no line with condition 'matched'"),
        ([row(condition="other")], "condition must be one of"),
    ],
)
def test_broken_rows_are_refused(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_slm_scores(write(tmp_path / "s.jsonl", *rows), ["a"])


def test_a_missing_field_is_named(tmp_path):
    broken = row()
    del broken["code_hits"]
    with pytest.raises(ValueError, match=r"'a' has no field \['code_hits'\]"):
        read_slm_scores(write(tmp_path / "s.jsonl", broken), ["a"])


def test_unigram_by_hand():
    train = {"t": np.array([[0, 1], [0, 1], [1, 1]])}
    model = UnigramModel.fit(train, num_entries=2)

    fields = model.fields("a", np.array([[0, 0], [1, 1]]))

    # add-one shares: (3/5, 2/5) and (1/5, 4/5)
    expected = -sum(map(math.log, (3 / 5, 1 / 5, 2 / 5, 4 / 5)))
    assert fields["unigram_loss_sum"] == pytest.approx(expected)
    assert fields["unigram_hits"] == 2
    assert (fields["unigram_words"], fields["unigram_slots"]) == (2, 4)


def test_a_uniform_guess_costs_log_k():
    model = UnigramModel.fit({"t": np.arange(8)[:, None]}, num_entries=8)

    assert model.fields("a", np.array([[5]]))["unigram_loss_sum"] == pytest.approx(
        math.log(8)
    )


def test_codes_out_of_range_are_refused():
    model = UnigramModel.fit({"t": np.array([[0]])}, num_entries=2)
    for codes in (np.array([[2]]), np.array([[-1]]), np.array([1]), np.array([[0.5]])):
        with pytest.raises(ValueError, match="codes of 'a' must be"):
            model.fields("a", codes)
    with pytest.raises(ValueError, match="no training codes"):
        UnigramModel.fit({}, num_entries=2)


def test_perplexity_of_a_fair_coin():
    assert perplexity(math.log(2)) == pytest.approx(2.0)
