"""The command: files in, edited files, audio and a report out."""

import importlib.util
import json

import numpy as np
import pytest
import soundfile
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.bin.edit import main
from espnet_taste.pipeline.interchange import TokenFile, write_tokens
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens

TEXT = "a b c d e f g h i j k l"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two deliveries of a text, and a model that opens."""
    tokenizer = tiny_tokenizer()

    def hear_words(wave, words):
        edges = np.linspace(0, len(wave) / 16000, len(words) + 1)
        return np.stack([edges[:-1], edges[1:]], axis=1), " ".join(words)

    tokenizer.encoder.hear_words = hear_words
    monkeypatch.setattr(
        TasteTokenizer, "from_pretrained", staticmethod(lambda *_, **__: tokenizer)
    )
    for name, seed in (("one", 1), ("two", 2)):
        tokens = tokenizer.encode(noise(16000, seed), TEXT, word_times=False)
        tokens.save(tmp_path / name)
    return tmp_path


def run(folder, *arguments, pitch=("--no_pitch",)):
    arguments = [str(folder / a) if a in ("one", "two") else a for a in arguments]
    output = ["--output_dir", str(folder / "out")]
    return main(["--model", "m", *output, *pitch, *arguments])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("swap", "one", "two", "--words", "1", "2"), ["first", "second"]),
        (
            ("transplant", "one", "two", "--word", "0", "--donor_word", "3"),
            ["edited"],
        ),
        (("replace", "one", "--word", "2", "--text", "new"), ["edited"]),
        (("interpolate", "one", "two", "--share", "0.5"), ["edited"]),
        (("repeat", "one", "--word", "1", "--times", "2"), ["edited"]),
    ],
)
def test_an_edit_leaves_tokens_audio_and_a_report(folder, arguments, names, capsys):
    assert run(folder, *arguments) == 0

    out = folder / "out"
    kinds = ("after.wav", "before.wav", "safetensors")
    wanted = {f"{name}.{kind}" for name in names for kind in kinds} | {"report.json"}
    assert {path.name for path in out.iterdir()} == wanted
    said = capsys.readouterr().out
    report = json.loads((out / "report.json").read_text())
    assert report["asked"]["edit"] == arguments[0]
    assert list(report["edits"]) == names
    for name in names:
        tokens = TasteTokens.load(out / f"{name}.safetensors")
        said_twice = arguments[0] == "repeat"
        assert tokens.times is None and len(tokens) == 12 + said_twice
        assert soundfile.info(out / f"{name}.after.wav").samplerate == 1000
        facts = report["edits"][name]
        assert len(facts["words"]) == len(tokens) and facts["caveats"]
        assert f"{name}: {tokens.text}" in said


def test_a_swap_of_files_is_the_swap(folder):
    run(folder, "swap", "one", "two", "--words", "1", "2")

    one, two = (TasteTokens.load(folder / name) for name in ("one", "two"))
    first = TasteTokens.load(folder / "out" / "first.safetensors")
    assert np.array_equal(first.codes[1:3], two.codes[1:3])
    assert np.array_equal(first.codes[3:], one.codes[3:])


def test_the_second_of_a_swap_has_rows_of_the_first(folder):
    run(folder, "swap", "one", "two", "--words", "1", "2")

    one, two = (TasteTokens.load(folder / name) for name in ("one", "two"))
    second = TasteTokens.load(folder / "out" / "second.safetensors")
    assert np.array_equal(second.codes[1:3], one.codes[1:3])
    assert np.array_equal(second.codes[3:], two.codes[3:])


def test_utterances_may_be_ids_in_a_file_of_tokens(folder, capsys):
    rows = {name: TasteTokens.load(folder / name) for name in ("one", "two")}
    path = folder / "tokens.jsonl"
    write_tokens(path, {f"utt-{name}": row for name, row in rows.items()})
    tokens = ("--tokens", str(path))

    edit = ("transplant", "utt-one", "utt-two", "--word", "0", "--source_word", "3")
    assert run(folder, *tokens, *edit) == 0

    made = TasteTokens.load(folder / "out" / "edited.safetensors")
    assert np.array_equal(made.codes[0], TokenFile(path)["utt-two"].codes[3])
    asked = json.loads((folder / "out" / "report.json").read_text())["asked"]
    assert (asked["utterance"], asked["donor_word"]) == ("utt-one", 3)
    assert run(folder, *tokens, "repeat", "utt", "--word", "0", "--times", "2") == 1
    assert f"no utterance 'utt' in {path}; encode it" in capsys.readouterr().err


def test_options_of_a_list_are_refused(folder, capsys):
    edit = ("repeat", "one", "--word", "0", "--times", "2")
    assert run(folder, "--measure", "false", *edit) == 1
    assert "--measure goes with --edit_list" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_retiming_learns_from_examples_with_times(folder, capsys):
    assert run(folder, "retime", "one", "--span", "0", "2", "--factor", "2") == 1
    assert "has no word times" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("swap", "one", "two", "--words", "12"), "no word 12 in"),
        (("interpolate", "one", "two", "--share", "2"), "share must be in 0..1"),
        (("repeat", "one", "--word", "1", "--times", "1"), "2 times or more, got 1"),
        (("replace", "no", "--word", "0", "--text", "x"), "no TASTE tokens at no"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, arguments, message, capsys):
    assert run(folder, *arguments) == 1

    error = capsys.readouterr().err
    assert message in error and error.startswith("edit: ") and error.count("\n") == 1
    assert not (folder / "out").exists()


def test_a_missing_pyworld_is_told_before_anything_is_done(folder, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda n, *a: None if n == "pyworld" else find(n, *a),
    )

    arguments = ("swap", "one", "two", "--words", "1")
    assert run(folder, *arguments, pitch=()) == 1
    assert "or use --no_pitch" in capsys.readouterr().err
    assert not (folder / "out").exists()
