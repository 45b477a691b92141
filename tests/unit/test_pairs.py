"""Benchmarks of pairs: from likelihoods to accuracies."""

import json

import pytest

from espnet_taste.bin import score_pairs as command
from espnet_taste.data.pair_sets import SALMON_PARTS, Pair, write_pairs
from espnet_taste.eval.bootstrap import Interval
from espnet_taste.eval.pair_page import render_pairs
from espnet_taste.eval.pairs import (
    OVERALL_MEAN,
    SALMON_CONSISTENCY,
    SALMON_MEAN,
    STORYCLOZE_MEAN,
    missing_parts,
    score_means,
    score_pairs,
)

PAIRS = [Pair(f"{n}", "one", f"{n}p", f"{n}n") for n in range(4)]


def test_a_tie_counts_half():
    scores = {"0p": 1.0, "0n": 0.0, "1p": 0.0, "1n": 1.0, "2p": 2.0, "2n": 2.0}
    result = score_pairs(PAIRS, scores | {"3p": -1.0, "3n": -5.0})["one"]

    assert result.accuracy.value == 2.5 / 4 and result.ties == 1
    assert 0 < result.accuracy.low < 2.5 / 4 < result.accuracy.high <= 1


def test_one_item_in_two_batches_is_a_tie():
    """Sums that a tiny spoken LM gave to one utterance, in batches of two kinds."""
    scores = {"a": -67.04207992553711, "b": -67.04207944869995, "c": -67.0419}
    pairs = [
        Pair("1", "x", "a", "b"),
        Pair("2", "x", "b", "a"),
        Pair("3", "x", "a", "c"),
    ]

    result = score_pairs(pairs, scores)["x"]

    assert result.outcomes == (0.5, 0.5, 0.0) and result.ties == 2


def test_a_pair_without_a_score_is_counted():
    scores = {"0p": 1.0, "0n": 0.0, "1p": 1.0, "1n": 0.0, "2p": 2.0}
    result = score_pairs(PAIRS, scores)["one"]

    assert (result.num_pairs, result.accuracy.num_items) == (4, 2)
    assert result.skipped == {"2": "2n", "3": "3p, 3n"}
    with pytest.raises(ValueError, match="one: none of 4 pairs has both scores"):
        score_pairs(PAIRS, {"0p": 1.0})
    with pytest.raises(ValueError, match="pair 0: scores nan"):
        score_pairs(PAIRS[:2], scores | {"0p": float("nan")})


def test_a_single_pair_has_no_interval():
    result = score_pairs(PAIRS[:1], {"0p": 1.0, "0n": 0.0})["one"]

    accuracy = result.accuracy
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, None, None)


def some_results(parts, num_pairs=8):
    """Every second pair of a part right, and of the first part all."""
    scores = {"a": 1.0, "b": 0.0}
    pairs = []
    for part in parts:
        for n in range(num_pairs):
            halves = ("a", "b") if n % 2 or part == parts[0] else ("b", "a")
            pairs.append(Pair(f"{part}{n}", part, *halves))
    return score_pairs(pairs, scores)


def test_salmons_mean_has_six_parts_of_eight():
    results = some_results(SALMON_PARTS)
    del results["bg_alignment"], results["sentiment_alignment"]
    assert set(results) == set(SALMON_CONSISTENCY)
    parts = SALMON_CONSISTENCY

    mean = score_means(some_results(parts))[SALMON_MEAN]

    assert mean.accuracy.value == pytest.approx((1 + 5 * 0.5) / 6)
    assert (mean.num_pairs, mean.accuracy.num_items) == (48, 48)
    # Drawn by parts: narrower than a part, wider than if all were one part of 48.
    width = mean.accuracy.high - mean.accuracy.low
    alone = some_results(parts)[parts[1]].accuracy
    assert 0.1 < width < alone.high - alone.low
    some = some_results(parts[1:])
    assert score_means(some) == {}
    assert missing_parts(some) == {SALMON_MEAN: [parts[0]]}
    assert missing_parts(["mine"]) == {}


def test_the_columns_of_the_paper_are_means_of_means():
    results = some_results([*SALMON_CONSISTENCY, "sSC", "tSC"])

    means = score_means(results)

    salmon, storycloze = means[SALMON_MEAN], means[STORYCLOZE_MEAN]
    overall = means[OVERALL_MEAN].accuracy
    assert storycloze.accuracy.value == 0.5
    expected = (salmon.accuracy.value + storycloze.accuracy.value) / 2
    assert overall.value == pytest.approx(expected)
    assert overall.low < overall.value < overall.high
    assert score_means(some_results(["sSC", "tSC"], 1))[
        STORYCLOZE_MEAN
    ].accuracy == Interval(0.5, None, None, 2)


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "pairs", PAIRS)
    write_rows(tmp_path, {f"{n}p": float(n) for n in range(4)})
    return tmp_path


def write_rows(folder, positive, transcripts="given", **scores):
    rows = {**positive, **{f"{n}n": 1.5 for n in range(4)}}
    lines = [
        json.dumps(
            {
                "key": key,
                "transcripts": transcripts,
                "scores": {"sum": value, "taste": -value, **scores},
            }
        )
        for key, value in rows.items()
    ]
    (folder / "l.jsonl").write_text("\n".join(lines) + "\n")


def run(folder, *options):
    pairs, rows = str(folder / "pairs"), str(folder / "l.jsonl")
    return command.main(
        ["--pairs", pairs, "--likelihoods", rows, "--output_dir", str(folder / "out")]
        + list(options)
    )


def test_the_command_scores_by_every_convention(folder, capsys):
    assert run(folder) == 0

    facts = json.loads((folder / "out" / "pairs.json").read_text())
    assert facts["transcripts"] == "given"
    accuracies = {n: p["one"]["accuracy"] for n, p in facts["conventions"].items()}
    assert accuracies == {"sum": 0.5, "taste": 0.5}
    assert facts["conventions"]["sum"]["one"]["num_scored"] == 4
    out = capsys.readouterr().out
    assert "sum" in out and "50.0 %" in out and "of 4 pairs" in out


def test_missing_halves_stop_the_command_unless_allowed(folder, capsys):
    write_rows(folder, {f"{n}p": float(n) for n in range(3)})
    assert run(folder) == 1
    assert "1 of 4 pairs have a half without 'sum' score" in capsys.readouterr().err
    assert run(folder, "--max_skipped", "0.3") == 0
    assert "of 3 pairs, 1 left out" in capsys.readouterr().out


def test_a_part_of_which_nothing_was_scored_stops_the_command(folder, capsys):
    write_pairs(folder / "pairs", [*PAIRS, Pair("x", "two", "xp", "xn")])

    assert run(folder, "--max_skipped", "0.5") == 1
    assert "l.jsonl: nothing of two; give the likelihoods" in capsys.readouterr().err


def test_why_halves_have_no_score_is_told(folder, capsys):
    write_rows(folder, {"0p": 1.0, "1p": 1.0})
    gone = [{"key": "3p", "reason": "no_words"}, {"key": "zz", "reason": "silent"}]
    (folder / "gone.jsonl").write_text("\n".join(map(json.dumps, gone)) + "\n")
    told = ("--excluded", str(folder / "gone.jsonl"), "--max_skipped", "0.5")

    assert run(folder, *told) == 0

    facts = json.loads((folder / "out" / "pairs.json").read_text())
    assert facts["left_out"] == {"one": {"no_words": 1, "reason not told": 1}}
    line = "one: halves without a score: 1 no_words, 1 reason not told"
    assert line in capsys.readouterr().out
    assert line in "\n".join(render_pairs({"set": facts}))


def test_a_part_without_any_word_behind_its_moments_is_not_passed_over(folder, capsys):
    """It had no row of ``localised``, and nobody was told."""
    lines = [json.loads(line) for line in (folder / "l.jsonl").open()]
    for line in lines:
        line["not_localised"] = "it is not known when its words were said"
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    assert run(folder) == 1
    assert "nothing has a 'localised' score: it is not known" in capsys.readouterr().err
    assert run(folder, "--conventions", "sum") == 0

    for key in ("xp", "xn"):
        scores = {"sum": 1.0, "taste": 1.0, "localised": 1.0}
        lines.append({"key": key, "transcripts": "given", "scores": scores})
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    write_pairs(folder / "pairs", [*PAIRS, Pair("x", "two", "xp", "xn")])
    assert run(folder, "--conventions", "localised") == 1
    assert "one: none of 4 pairs has both scores" in capsys.readouterr().err


def test_an_item_without_a_convention_is_left_out_of_that_one(folder, capsys):
    """A moment behind which nothing is said gives no ``localised`` score."""
    lines = [json.loads(line) for line in (folder / "l.jsonl").open()]
    del lines[0]["scores"]["taste"]
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")

    assert run(folder) == 1
    assert "a half without 'taste' score, e.g. ['0p']" in capsys.readouterr().err
    assert run(folder, "--max_skipped", "0.3") == 0

    found = json.loads((folder / "out" / "pairs.json").read_text())["conventions"]
    assert found["sum"]["one"]["num_scored"] == 4
    assert found["taste"]["one"]["num_scored"] == 3
    assert found["taste"]["one"]["skipped"] == {"0": "0p"}
    assert "of 3 pairs, 1 left out" in capsys.readouterr().out


def test_a_part_that_a_convention_is_not_for_has_no_row_of_it(folder):
    """Only some benchmarks have moments, from which on their endings are scored."""
    lines = [json.loads(line) for line in (folder / "l.jsonl").open()]
    for key, score in (("xp", 2.0), ("xn", 1.0), ("yp", 1.0), ("yn", 2.0)):
        scores = {"sum": score, "taste": score, "localised": score}
        lines.append({"key": key, "transcripts": "given", "scores": scores})
    (folder / "l.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    two = [Pair("x", "two", "xp", "xn"), Pair("y", "two", "yp", "yn")]
    write_pairs(folder / "pairs", [*PAIRS, *two])

    assert run(folder) == 0

    found = json.loads((folder / "out" / "pairs.json").read_text())["conventions"]
    assert list(found["localised"]) == ["two"]
    assert found["localised"]["two"]["accuracy"] == 0.5
    assert {"one", "two"} <= set(found["sum"])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, ["--conventions", "mean"], "nothing has a 'mean' score: only"),
        ({"sum": None}, [], "has sum None; expected a finite number"),
    ],
)
def test_scores_that_cannot_be_used_are_named(folder, change, options, message, capsys):
    write_rows(folder, {f"{n}p": float(n) for n in range(4)}, **change)
    assert run(folder, *options) == 1
    assert message in capsys.readouterr().err


def test_words_of_two_sources_are_not_compared(folder, capsys):
    lines = (folder / "l.jsonl").read_text()
    (folder / "l.jsonl").write_text(lines.replace("given", "whisper", 1))
    assert run(folder) == 1
    assert "several sources (given, whisper)" in capsys.readouterr().err


def test_several_benchmarks_at_once_stand_beside_what_is_published(tmp_path, capsys):
    for part in ("sSC", "tSC", "sWUGGY_in_vocabulary", "gender_consistency"):
        pairs = [Pair(f"{part}{n}", part, f"{part}{n}p", f"{part}{n}n") for n in "12"]
        write_pairs(tmp_path / f"{part}.pairs", pairs)
        rows = {key: 1.0 for p in pairs for key in (p.positive, p.negative)}
        lines = [
            json.dumps({"key": key, "transcripts": "given", "scores": {"sum": value}})
            for key, value in rows.items()
        ]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    tables = sorted(map(str, tmp_path.glob("*.pairs")))
    options = ["--likelihoods", *sorted(map(str, tmp_path.glob("*.jsonl")))]
    options += ["--output_dir", str(tmp_path / "out")]

    assert command.main(["--pairs", *tables, *options]) == 0

    facts = json.loads((tmp_path / "out" / "pairs.json").read_text())
    assert facts["conventions"]["sum"][STORYCLOZE_MEAN]["accuracy"] == 0.5
    assert facts["means_without"].keys() == {SALMON_MEAN}
    assert {"sSC", "tSC", "sWUGGY", "gender_consistency", "StoryCloze"} == set(
        facts["published"]
    )
    ours = {r["system"]: r["value"] for r in facts["published"]["StoryCloze"]}
    assert ours["TASLM embedding, 45M of 1.3B tuned"] == 76.7
    out = capsys.readouterr().out
    assert f"no {SALMON_MEAN}: without bg_all_consistency" in out
    assert "published, StoryCloze: TWIST 1.3B 61.5; TWIST 7B 64.7" in out

    assert command.main(["--pairs", *tables, tables[0], *options]) == 1
    assert "is in another table, too" in capsys.readouterr().err
