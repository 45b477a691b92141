"""Stories in several voices and across modalities become data folders and tables."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from espnet_taste.data.kaldi import read_table
from espnet_taste.data.pair_sets import read_pairs
from espnet_taste.data.stories import find_stories

SCRIPT = Path(__file__).parents[2] / "local" / "prepare_pairs.py"


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare_pairs", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture
def stories(tmp_path):
    """Two stories in two voices; what they are made of tells the parts apart."""
    folder = tmp_path / "stories"
    for voice, rate in (("anna", 16000), ("b ob", 8000)):
        (folder / voice).mkdir(parents=True)
        for level, part in enumerate(("mutual", "correct", "incorrect"), start=1):
            base = folder / voice / f"7_{part}"
            wave = np.full(rate * level, level / 10, dtype=np.float32)
            soundfile.write(f"{base}.wav", wave, rate)
            Path(f"{base}.txt").write_text(f"{voice[0]} {part}\n words\n")
    return folder


def run(prepare, tmp_path, stories, *options):
    return prepare(
        ["--corpus_dir", str(stories), "--set", "st", "--data_root", str(tmp_path)]
        + list(options)
    )


def test_whole_stories_of_several_voices(prepare, tmp_path, stories):
    assert run(prepare, tmp_path, stories, "--layout", "multispeaker") == 0

    pairs = read_pairs(tmp_path / "st" / "pairs")
    assert [(p.positive, p.part) for p in pairs] == [
        ("anna-7-pos", "st"),
        ("b_ob-7-pos", "st"),
    ]
    wav = read_table(tmp_path / "st" / "wav.scp")
    assert wav["b_ob-7-neg"].endswith("b ob/7_incorrect.wav")
    text = read_table(tmp_path / "st" / "text")
    assert text["anna-7-pos"] == "a correct words"


def test_without_texts_there_is_no_text_table(prepare, tmp_path, stories):
    for path in stories.rglob("*.txt"):
        path.unlink()

    assert run(prepare, tmp_path, stories, "--layout", "multispeaker") == 0

    assert not (tmp_path / "st" / "text").exists()


@pytest.mark.parametrize(
    ("prompt", "ending", "table", "audio", "value"),
    [
        ("text", "speech", "text_before", "7_incorrect.wav", "a mutual words"),
        ("speech", "text", "text_after", "7_mutual.wav", "a incorrect words"),
        ("speech", "speech", "moments", "anna-7-neg.flac", "1.0000"),
    ],
)
def test_endings_across_modalities(
    prepare, tmp_path, stories, prompt, ending, table, audio, value
):
    options = ["--layout", "crossmodal", "--prompt", prompt, "--ending", ending]

    assert run(prepare, tmp_path, stories, *options, "--num_pairs", "2") == 0

    wav = read_table(tmp_path / "st" / "wav.scp")
    assert wav["anna-7-neg"].endswith(audio)
    assert read_table(tmp_path / "st" / table)["anna-7-neg"] == value
    text = read_table(tmp_path / "st" / "text")["anna-7-neg"]
    spoken = {
        "text_before": "a incorrect words",
        "text_after": "a mutual words",
        "moments": "a mutual words a incorrect words",
    }
    assert text == spoken[table]


@pytest.mark.parametrize("again", ["crossmodal", "multispeaker"])
def test_no_table_of_an_earlier_preparation_stays(prepare, tmp_path, stories, again):
    assert run(prepare, tmp_path, stories, "--layout", "crossmodal") == 0
    made = tmp_path / "st"
    assert (made / "moments").exists()
    (made / "text_after").write_text("old words\n")

    options = ["--prompt", "text"] if again == "crossmodal" else []
    assert run(prepare, tmp_path, stories, "--layout", again, *options) == 0

    left = {name for name in ("moments", "text_before", "text_after")
            if (made / name).exists()}  # fmt: skip
    assert left == ({"text_before"} if options else set())


def test_the_tables_of_another_corpus_are_left_alone(prepare, tmp_path, stories):
    for name in ("wav.scp", "moments"):
        (tmp_path / "st").mkdir(exist_ok=True)
        (tmp_path / "st" / name).write_text("a 1\n")

    assert run(prepare, tmp_path, stories, "--layout", "crossmodal") == 1

    assert (tmp_path / "st" / "moments").read_text() == "a 1\n"


def test_recordings_of_a_users_are_not_written_over(prepare, tmp_path, stories):
    """They may bear the same names and stand in no table yet."""
    mine = tmp_path / "st" / "audio" / "anna-7-neg.flac"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")

    assert run(prepare, tmp_path, stories, "--layout", "crossmodal") == 1

    assert mine.read_bytes() == b"mine"


def test_beginning_and_ending_become_one_recording(prepare, tmp_path, stories):
    assert run(prepare, tmp_path, stories, "--layout", "crossmodal") == 0

    wav = read_table(tmp_path / "st" / "wav.scp")
    wave, rate = soundfile.read(wav["b_ob-7-pos"])
    assert rate == 16000 and len(wave) == 3 * 16000
    assert wave[8000] == pytest.approx(0.1, abs=1e-3)
    assert wave[32000] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "lost", "message"),
    [
        (["--prompt", "text", "--ending", "text"], None, "a text LLM alone"),
        (["--num_pairs", "3"], None, "2 stories, expected 3"),
        ([], "anna/7_mutual.wav", "story anna-7"),
        ([], "anna/7_correct.txt", "7_correct.txt is absent"),
        ([], "anna/7_incorrect.wav", "7_incorrect.wav is absent"),
    ],
)
def test_faults_are_named(prepare, tmp_path, stories, options, lost, message, capsys):
    if lost:
        (stories / lost).unlink()

    assert run(prepare, tmp_path, stories, "--layout", "crossmodal", *options) == 1

    assert message in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["multispeaker", "crossmodal"])
@pytest.mark.parametrize("orphan", ["9_incorrect.wav", "9_correct.wav", "9_mutual.txt"])
def test_a_story_without_its_other_files_is_named(
    prepare, tmp_path, stories, layout, orphan, capsys
):
    (stories / "anna" / orphan).write_text("words")

    assert run(prepare, tmp_path, stories, "--layout", layout) == 1

    assert "story anna-9: " in capsys.readouterr().err


def test_a_text_of_one_story_alone_is_named(prepare, tmp_path, stories, capsys):
    (stories / "b ob" / "7_incorrect.txt").unlink()

    assert run(prepare, tmp_path, stories, "--layout", "multispeaker") == 1

    assert "7_incorrect.txt is absent" in capsys.readouterr().err


def test_the_name_of_another_test_is_refused(prepare, tmp_path, stories, capsys):
    options = ["--layout", "multispeaker", "--set", "sSC"]

    assert run(prepare, tmp_path, stories, *options) == 1

    assert "--layout multispeaker is not sSC" in capsys.readouterr().err


def test_an_empty_text_and_an_empty_folder(prepare, tmp_path, stories, capsys):
    (stories / "anna" / "7_mutual.txt").write_text(" \n")
    assert run(prepare, tmp_path, stories, "--layout", "crossmodal") == 1
    assert "7_mutual.txt: no text" in capsys.readouterr().err

    with pytest.raises(ValueError, match="no files called <name>_correct.wav"):
        find_stories(tmp_path / "nowhere")
