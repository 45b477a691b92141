"""What a killed or broken job leaves behind must never become a score."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fabricated_scores import save_run, whole_run

from espnet_taste.bin import report, score
from espnet_taste.eval.asr_judge import Transcript, judge_all
from espnet_taste.eval.duration import TimedWord
from espnet_taste.eval.score_file import score_path

GOOD = (
    '{"key": "a", "condition": "matched", "loss_sum": 6.0, "top1": 1, "top5": 2, '
    '"count": 3}\n'
)


@pytest.fixture
def score_units(tmp_path):
    """Score a unit file of two utterances; return status and output path."""
    data = tmp_path / "dump"
    data.mkdir()
    (data / "text").write_text("a one\nb two\n")

    def call(content):
        scores = tmp_path / "unit_scores.jsonl"
        scores.write_text(content)
        argv = ["--kind", "units", "--system", "taste", "--set", "test"]
        argv += ["--data_dir", data, "--output_dir", tmp_path, "--unit_scores", scores]
        return score.main([str(arg) for arg in argv])

    return call


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        pytest.param(GOOD[:40], "unit_scores.jsonl:2: not JSON", id="truncated"),
        pytest.param(GOOD, "'a' is scored twice as matched", id="repeated"),
        pytest.param("", "no score for 1 utterances: ['b']", id="missing"),
        pytest.param(GOOD.replace('"a"', '"b"').replace("6.0", "NaN"),
                     "'b' has loss_sum nan", id="nan"),
        pytest.param(GOOD.replace('"a"', '"b"').replace("6.0", "Infinity"),
                     "'b' has loss_sum inf", id="inf"),
        pytest.param(GOOD.replace('"a"', '"b"').replace("6.0", "null"),
                     "'b' has loss_sum None", id="null"),
        pytest.param(GOOD.replace('"a"', '"b"').replace("loss_sum", "loss"),
                     "'b' has no field ['loss_sum']", id="field"),
        pytest.param(GOOD.replace('"a"', '"c"'),
                     "no score for 1 utterances: ['b']", id="unknown"),
        pytest.param("\n", "unit_scores.jsonl:2: not JSON", id="blank"),
        pytest.param("[1]\n", "unit_scores.jsonl:2: expected an object", id="list"),
    ],
)  # fmt: skip
def test_a_broken_unit_score_stops_the_run(
    tmp_path, capsys, score_units, second_line, message
):
    assert score_units(GOOD + second_line) == 1

    error = capsys.readouterr().err
    assert error.startswith("score: system 'taste', set 'test': ")
    assert message in error
    assert not (tmp_path / "scores_units.json").exists()


def test_an_utterance_that_is_not_in_the_set_stops_the_run(capsys, score_units):
    rest = GOOD.replace('"a"', '"b"') + GOOD.replace('"a"', '"c"')

    assert score_units(GOOD + rest) == 1
    assert "scores for unknown 1 utterances: ['c']" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path, capsys, score_units):
    assert score_units(GOOD + GOOD.replace('"a"', '"b"')) == 0
    (tmp_path / "dump" / "text").unlink()

    assert score_units(GOOD) == 1
    assert "text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param('"units": ', '"units": NaN, "x": ', "units = nan", id="nan"),
        pytest.param('"units": ', '"x": ', "no units for 1 of 12", id="missing"),
        pytest.param('"items"', '"item"', "item", id="field"),
        pytest.param("espnet_taste.scores/1", "other/1", "schema", id="schema"),
    ],
)
def test_a_damaged_score_file_stops_the_report(tmp_path, capsys, old, new, message):
    options = save_run(tmp_path)
    path = score_path(tmp_path / "taste", "test", "units")
    path.write_text(path.read_text().replace(old, new, 1))

    argv = [*options, "--test_sets", "test", "--output_dir", str(tmp_path)]
    assert report.main([*argv, "--seed", "1"]) == 1

    assert message in capsys.readouterr().err
    assert not (tmp_path / "RESULTS.md").exists()
    assert not (tmp_path / "results.json").exists()


def test_a_system_without_scores_is_named(tmp_path, capsys):
    options = save_run(tmp_path, {**whole_run(), "taste": []})

    argv = [*options, "--test_sets", "test", "--output_dir", str(tmp_path)]
    assert report.main([*argv, "--seed", "1"]) == 1
    assert "row 'taste': no score file in" in capsys.readouterr().err


class Judge:
    """Hears one word; counts its calls."""

    name = "fake"
    calls = 0

    def transcribe(self, audio):
        self.calls += 1
        return Transcript("\u00fcber", (TimedWord("\u00fcber", 0.0, 1.0),))


def signals(number):
    return [(f"u{n}", np.full(4, n, dtype=np.float32)) for n in range(number)]


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_broken_last_line_of_the_cache_is_judged_again(tmp_path, caplog, cut):
    cache = tmp_path / "judge.jsonl"
    judge_all(Judge(), signals(3), cache)
    whole = cache.read_bytes()
    cache.write_bytes(whole[:-cut])
    judge = Judge()

    with caplog.at_level(logging.WARNING):
        judge_all(judge, signals(3), cache)

    assert judge.calls == 1
    assert "dropping the broken last line" in caplog.text
    assert cache.read_bytes() == whole


def test_a_broken_line_in_the_middle_of_the_cache_stops_the_run(tmp_path):
    cache = tmp_path / "judge.jsonl"
    judge_all(Judge(), signals(2), cache)
    first, second = cache.read_text().splitlines()
    cache.write_text(f"{first[:20]}\n{second}\n")

    with pytest.raises(ValueError, match="judge.jsonl:1: not JSON"):
        judge_all(Judge(), signals(2), cache)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from espnet_taste.eval import asr_judge
from test_broken_eval_files import Judge, signals

class Killed(Judge):
    def transcribe(self, audio):
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().transcribe(audio)

asr_judge.judge_all(Killed(), signals(5), Path(sys.argv[1]))
"""


def test_a_killed_judge_goes_on_where_it_stopped(tmp_path):
    """Two of five signals were heard when the process was killed."""
    here = Path(__file__).parent
    paths = (here, here.parent, here.parents[1])
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "judge.jsonl"), str(here)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
    )
    judge = Judge()

    resumed = judge_all(judge, signals(5), tmp_path / "judge.jsonl")

    assert killed.returncode == -9, killed.stderr
    assert judge.calls == 3
    assert resumed == judge_all(Judge(), signals(5), tmp_path / "whole.jsonl")
    keys = [json.loads(row)["key"] for row in (tmp_path / "judge.jsonl").open()]
    assert keys == ["u0", "u1", "u2", "u3", "u4"]
