"""Spoken questions: from downloads to the share of right answers."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from espnet_taste.bin import score_answers as command
from espnet_taste.data.kaldi import read_table
from espnet_taste.eval.answers import (
    contains_answer,
    judge_answers,
    split_accepted,
    summarise,
)
from espnet_taste.pipeline.interchange import write_tokens
from espnet_taste.pipeline.tokens import TasteTokens

SCRIPT = Path(__file__).parents[2] / "local" / "prepare_questions.py"


@pytest.fixture(scope="module")
def prepare():
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.mark.parametrize(
    ("said", "accepted", "expected"),
    [
        ("It is Paris, of course.", ["paris"], True),
        ("It is Parisian.", ["Paris"], False),
        ("the new york times", ["New York"], True),
        ("york new", ["New York"], False),
        ("", ["x"], False),
        ("four", ["4", "Four"], True),
    ],
)
def test_an_answer_counts_in_whole_words(said, accepted, expected):
    assert contains_answer(said, accepted) == expected


def test_accepted_answers_of_a_table():
    assert split_accepted("Paris | the city |!") == ("Paris", "the city")
    with pytest.raises(ValueError, match="no accepted answer has a word: '!'"):
        split_accepted("!")


def test_a_question_without_an_answer_is_wrong_and_counted():
    accepted = {"a": ["x"], "b": ["y"], "c": ["z"]}

    found = summarise(judge_answers({"a": "x it is", "b": "..."}, accepted))

    assert (found["num_items"], found["num_right"], found["num_empty"]) == (3, 1, 2)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["low"] <= found["accuracy"] <= found["high"]


def test_an_answer_to_no_question_is_refused():
    with pytest.raises(ValueError, match=r"not asked: \['q'\]"):
        judge_answers({"q": "x"}, {"a": ["x"]})


def make_tokens(text):
    count = len(text.split())
    return TasteTokens(
        words=tuple(text.split()),
        speaker=np.ones(2, np.float32),
        asr_tokens=np.arange(count),
        asr_words=np.arange(count),
        codes=np.zeros((count, 2), dtype=np.int64),
    )


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "answers").write_text("a Paris\nb one|1\n")
    return tmp_path


def run(folder, *options):
    paths = ["--answers", str(folder / "answers"), "--output_dir", str(folder / "out")]
    return command.main([*paths, *options])


def test_the_command_scores_tokens_as_text(folder, capsys):
    rows = {"a": make_tokens("it is paris"), "b": make_tokens("two")}
    write_tokens(folder / "tokens.jsonl", rows)

    assert run(folder, "--tokens", str(folder / "tokens.jsonl")) == 0

    facts = json.loads((folder / "out" / "answers.json").read_text())
    assert (facts["output"], facts["accuracy"]) == ("text", 0.5)
    assert "speech to text: 50.0 %" in capsys.readouterr().out
    lines = (folder / "out" / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["is_right"] for line in lines] == [True, False]


def test_the_command_scores_what_was_heard_as_speech(folder):
    (folder / "heard").write_text("b the one\n")

    assert run(folder, "--text", str(folder / "heard")) == 0

    facts = json.loads((folder / "out" / "answers.json").read_text())
    assert (facts["output"], facts["num_empty"]) == ("speech", 1)


def test_a_csv_becomes_a_data_folder(tmp_path, prepare):
    source = tmp_path / "web"
    (source / "audios").mkdir(parents=True)
    for name in ("q0.mp3", "q1.mp3"):
        (source / "audios" / name).touch()
    table = "Q,A,file\nwho?,\"['Ann', 'Anna']\",q0.mp3\nwhere|?,home,sub/q1.mp3\n"
    (source / "web.csv").write_text(table)
    columns = ["--question_column", "Q", "--answer_column", "A"]
    columns += ["--audio_column", "file", "--num_questions", "2"]
    options = ["--layout", "csv", "--corpus_dir", str(source), "--set", "web"]
    options += ["--data_root", str(tmp_path / "data")]

    assert prepare([*options, *columns]) == 0

    data = tmp_path / "data" / "web"
    assert read_table(data / "answers") == {
        "web-00000": "Ann|Anna",
        "web-00001": "home",
    }
    assert read_table(data / "text")["web-00000"] == "who?"
    assert read_table(data / "wav.scp")["web-00001"].endswith("audios/q1.mp3")


def test_parquet_files_become_a_data_folder(tmp_path, prepare):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "llama"
    (source / "data").mkdir(parents=True)
    rows = {
        "question": ["who?", "where?"],
        "answer": ["Ann", "home"],
        "audio": [
            {"bytes": b"sound", "path": "x.wav"},
            {"bytes": b"more", "path": None},
        ],
    }
    parquet.write_table(pyarrow.table(rows), source / "data" / "test.parquet")
    options = ["--layout", "parquet", "--corpus_dir", str(source), "--set", "llama"]
    options += ["--data_root", str(tmp_path / "data")]

    assert prepare(options) == 0

    data = tmp_path / "data" / "llama"
    path = Path(read_table(data / "wav.scp")["llama-00001"])
    assert path.read_bytes() == b"more" and path.suffix == ".wav"
    assert read_table(data / "answers")["llama-00000"] == "Ann"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("question,answer\nwho?,x\n", "no column ['audio']"),
        ("question,answer,audio\nwho?,x,none.wav\n", "no audio 'none.wav'"),
        ("question,answer,audio\nwho?,,q.wav\n", "no answer"),
    ],
)
def test_what_is_missing_is_named(tmp_path, prepare, capsys, table, message):
    (tmp_path / "q.csv").write_text(table)
    (tmp_path / "q.wav").touch()
    options = ["--layout", "csv", "--corpus_dir", str(tmp_path), "--set", "s"]

    assert prepare([*options, "--data_root", str(tmp_path / "data")]) == 1
    assert message in capsys.readouterr().err


def test_an_incomplete_or_absent_download_is_told(tmp_path, prepare, capsys):
    (tmp_path / "q.csv").write_text("question,answer,audio\nwho?,x,q.wav\n")
    (tmp_path / "q.wav").touch()
    options = ["--layout", "csv", "--set", "s", "--data_root", str(tmp_path / "data")]

    here = ["--corpus_dir", str(tmp_path), "--num_questions", "300"]
    assert prepare([*options, *here]) == 1
    assert "1 questions, expected 300" in capsys.readouterr().err
    assert prepare([*options, "--corpus_dir", str(tmp_path / "none")]) == 1
    assert "huggingface.co/datasets" in capsys.readouterr().err
