"""Spoken questions: from downloads to the share of right answers."""

import csv
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hub_sounds import level, sound_bytes

from espnet_taste.bin import score_answers as command
from espnet_taste.data.kaldi import read_table
from espnet_taste.eval.answer_page import render_answers
from espnet_taste.eval.answers import (
    check_shots,
    contains_answer,
    first_sentence,
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
        ("four", ["4"], True),
        ("twenty-four", ["4"], False),
        ("In nineteen sixty nine.", ["1969"], True),
        ("It took 1,000 years.", ["one thousand"], True),
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


def test_a_single_question_has_no_interval():
    found = summarise(judge_answers({"a": "x"}, {"a": ["x"]}))

    assert (found["accuracy"], found["low"], found["high"]) == (1.0, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Paris. What is the capital of Italy? Rome.", "Paris."),
        ("It is St. Louis. And then", "It is St. Louis."),
        ("J. R. R. Tolkien! Who", "J. R. R. Tolkien!"),
        ("In the U.S. it is. Yes", "In the U.S. it is."),
        ("... well, four. Five", "... well, four."),
        ('He said "yes." Then', 'He said "yes."'),
        ("In 7. Then", "In 7."),
        ("It is 3.5. Question two? 4.", "It is 3.5."),
        ("It is 3.5 or so. Then", "It is 3.5 or so."),
        ("no end", "no end"),
        ("", ""),
    ],
)
def test_what_follows_the_first_sentence_is_no_answer(text, expected):
    assert first_sentence(text) == expected


def test_examples_must_not_be_questions():
    questions = {"q1": "Who was it?", "q2": "..."}

    check_shots({"s": "Who was she? Ann."}, questions)
    with pytest.raises(ValueError, match="example 's' is question 'q1'"):
        check_shots({"s": "who was it Ann"}, questions)
    with pytest.raises(ValueError, match="example 'q2' is question 'q2'"):
        check_shots({"q2": "other"}, questions)


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


def test_the_command_scores_what_was_heard_as_speech(folder, capsys):
    (folder / "heard").write_text("b the one\n")
    told = ["--benchmark", "Web-Questions", "--heard_by", "base", "--shots", "none"]
    told += ["--model", "mine", "--transcripts", "whisper-tiny.en"]

    assert run(folder, "--text", str(folder / "heard"), *told) == 0

    facts = json.loads((folder / "out" / "answers.json").read_text())
    assert (facts["output"], facts["num_empty"]) == ("speech", 1)
    names = ("model", "transcripts", "heard_by", "num_shots", "judged", "numbers")
    expected = ["mine", "whisper-tiny.en", "base", 0, "all", "digits-en-1"]
    assert [facts[name] for name in names] == expected
    values = {r["system"]: r["value"] for r in facts["published"].pop(
        "Web-Questions, speech"
    )}  # fmt: skip
    assert values == {"GLM-4-Voice": 15.9, "Moshi": 9.2, "TWIST": 1.5}
    assert facts["published"] == {}
    assert (
        "published, Web-Questions, speech: GLM-4-Voice 15.9" in capsys.readouterr().out
    )


def test_questions_in_front_of_the_answers_are_refused(folder, capsys):
    """``complete`` writes the prompt along unless it is told not to."""
    (folder / "text").write_text("a Is it Rome or Paris?\nb How many?\n")
    rows = {"a": make_tokens("is it rome or paris rome"), "b": make_tokens("two")}
    write_tokens(folder / "tokens.jsonl", rows)
    assert run(folder, "--tokens", str(folder / "tokens.jsonl")) == 0
    rows["b"] = make_tokens("How many? Two.")
    write_tokens(folder / "tokens.jsonl", rows)

    assert run(folder, "--tokens", str(folder / "tokens.jsonl")) == 1

    error = capsys.readouterr().err
    assert "2 of 2 answers begin with their question" in error
    assert "--with_prompt false" in error


def test_the_page_tells_how_they_were_made(folder):
    (folder / "heard").write_text("b the one\n")
    told = ["--benchmark", "Web-Questions", "--shots", "none"]
    assert run(folder, "--text", str(folder / "heard"), *told) == 0
    facts = json.loads((folder / "out" / "answers.json").read_text())

    page = "\n".join(render_answers({"web": facts}))

    assert (
        "| web | 50.0% [0.0, 100.0] of 2 | 1 | as speech | all | 0 | not told |" in page
    )
    assert "* published, Web-Questions, speech: GLM-4-Voice 15.9" in page
    assert render_answers({}) == []


def test_behind_examples_the_first_sentence_is_judged(folder, capsys):
    write_tokens(folder / "tokens.jsonl", {"a": make_tokens("Rome. Who? Paris.")})
    tokens = ["--tokens", str(folder / "tokens.jsonl")]
    write_tokens(folder / "shots.jsonl", {"s": make_tokens("Which town? Berlin.")})
    shots = ["--shots", str(folder / "shots.jsonl")]

    assert run(folder, *tokens, *shots) == 1
    assert "needs the texts of the questions: --questions" in capsys.readouterr().err
    (folder / "text").write_text("a Which capital?\nb How many?\n")
    for options, share, judged in (
        (shots, 0.0, "first_sentence"),
        ([*shots, "--judged", "all"], 0.5, "all"),
        ([], 0.5, "all"),
    ):
        assert run(folder, *tokens, *options) == 0
        facts = json.loads((folder / "out" / "answers.json").read_text())
        assert (facts["accuracy"], facts["judged"]) == (share, judged)
        assert facts["num_shots"] == (1 if options else None)

    (folder / "text").write_text("a which town\nb How many?\n")
    assert run(folder, *tokens, *shots) == 1
    assert "example 's' is question 'a'" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("""['O\\'Hare', 'Chicago']""", "O'Hare|Chicago"),
        ("""["O'Hare", 'Chicago']""", "O'Hare|Chicago"),
        ("""["O'Hare", "say \\"x\\""]""", 'O\'Hare|say "x"'),
        ("[4, 'four']", "4|four"),
        ("O'Hare", "O'Hare"),
    ],
)
def test_lists_of_answers_keep_their_apostrophes(
    tmp_path, prepare, capsys, written, expected
):
    (tmp_path / "q.wav").touch()
    with (tmp_path / "q.csv").open("w", newline="") as stream:
        rows = [("question", "answer", "audio"), ("who?", written, "q.wav")]
        csv.writer(stream).writerows(rows)
    options = ["--layout", "csv", "--corpus_dir", str(tmp_path), "--set", "s"]

    assert prepare([*options, "--data_root", str(tmp_path / "data")]) == 0

    assert read_table(tmp_path / "data" / "s" / "answers") == {"s-00000": expected}
    assert "is not known here: --num_questions" in capsys.readouterr().out


def test_parquet_files_become_a_data_folder(tmp_path, prepare, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    source = tmp_path / "llama"
    (source / "data").mkdir(parents=True)
    rows = {
        "question": ["who?", "where?"],
        "answer": ["Ann", "home"],
        "audio": [
            {"bytes": sound_bytes("WAV", 0.1), "path": "x.wav"},
            {"bytes": sound_bytes("FLAC", 0.2), "path": None},
        ],
    }
    parquet.write_table(pyarrow.table(rows), source / "data" / "test.parquet")
    options = ["--layout", "parquet", "--corpus_dir", str(source), "--set", "llama"]
    options += ["--data_root", str(tmp_path / "data")]

    assert prepare(options) == 1
    assert "2 questions, expected 300" in capsys.readouterr().err
    assert prepare([*options, "--num_questions", "2"]) == 0

    data = tmp_path / "data" / "llama"
    path = Path(read_table(data / "wav.scp")["llama-00001"])
    assert path.parent == data / "audio"  # not beside the download
    assert soundfile.info(path).format == "WAV" and level(path) == 0.2
    assert read_table(data / "answers")["llama-00000"] == "Ann"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("question,answer\nwho?,x\n", "no column ['audio']"),
        ("question,answer,audio\nwho?,x,none.wav\n", "no audio 'none.wav'"),
        ("question,answer,audio\nwho?,x\n", "no column ['audio'], there are ['answer"),
        ("question,sound\nwho?,\n", "['answer', 'audio'], there are ['question', 'so"),
        ("audio,question,answer\nq.wav,who?,Oslo, or Bergen\n", "needs quotes"),
        ("question,answer,audio\nwho?,,q.wav\n", "no answer"),
        ("question,answer,audio\nwho?,x,w.wav\n", "several audio 'w.wav'"),
        ("question,answer,audio\nwho?,[x,q.wav\n", "no list of answers: [x"),
        (
            "question,answer,audio\nwho?,['Ann' 'Bo'],q.wav\n",
            "commas are missing: ['Ann' 'Bo']",
        ),
        ("question,answer,audio\nwho?,[[1]],q.wav\n", "answers must be texts"),
    ],
)
def test_what_is_missing_is_named(tmp_path, prepare, capsys, table, message):
    (tmp_path / "q.csv").write_text(table)
    (tmp_path / "q.wav").touch()
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.wav").touch()
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
