"""Folders in Kaldi style become sets: joined, divided, or as they are."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_folders import kaldi_folder, prepare, tables, write
from recipe_shell import once

from espnet_taste.bin import format_audio
from espnet_taste.data.kaldi import read_table


def test_kaldi_folders_joined_and_divided(tmp_path):
    kaldi_folder(tmp_path / "a", "a", 40, "s1")
    kaldi_folder(tmp_path / "b", "b", 40, "s2")
    kaldi_folder(tmp_path / "c", "c", 3, "s3")
    (tmp_path / "b" / "utt2spk").unlink()
    args = ["--split", "a", tmp_path / "b", "--valid_share", "0.1", "--test_share"]
    args += ["0.2", "--set", "other=c", "both=a,c"]

    result = prepare("kaldi_dir", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    data = tmp_path / "data"
    divided = {}
    for name in ("train", "valid", "test"):
        _, _, speakers = tables(data / name)
        assert {key[0] for key in speakers} == {"a", "b"}
        divided |= speakers
    assert len(divided) == 80
    assert {key[0]: name for key, name in divided.items()} == {"a": "s1", "b": "b"}
    wav, text, _ = tables(data / "other")
    assert wav["c00"] == "c/x.wav" and text["c00"] == "hi"
    assert len(tables(data / "both")[0]) == 43


def test_a_kaldi_folder_with_segments_arks_and_gaps(tmp_path):
    write(tmp_path / "a" / "wav.scp", "r1 x.ark:17\nr2 cat y.wav |\n")
    write(tmp_path / "a" / "segments", "u1 r1 0 1.5\nu2 r2 1 2\nu3 gone 0 1\n")
    write(tmp_path / "a" / "text", "u1 one\nu4 four\n")
    write(tmp_path / "a" / "x.ark")

    result = prepare("kaldi_dir", "--set", "all=a", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "all")
    assert wav == {"r1": "a/x.ark:17", "r2": "cat y.wav |"}
    assert text == {"u1": "one", "u4": "four"}
    assert speakers == dict.fromkeys(["u1", "u2", "u3", "u4"], "a")
    segments = read_table(tmp_path / "data" / "all" / "segments")
    assert segments["u3"] == "gone 0.0 1.0" and len(segments) == 3


def test_folders_of_an_espnet_recipe_are_formatted(tmp_path):
    """Its tables count from its own folder, and may hold commands."""
    recipe, ours = tmp_path / "asr1", tmp_path / "taste1"
    ours.mkdir()
    write(
        recipe / "data/train/wav.scp", "u1 downloads/a.wav\nu2 cat downloads/a.wav |\n"
    )
    write(recipe / "data/train/text", "u1 one\nu2 two\n")
    write(recipe / "data/train/utt2spk", "u1 s\nu2 s\n")
    (recipe / "downloads").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8000)
    soundfile.write(recipe / "downloads/a.wav", noise, 16000)

    result = prepare("kaldi_dir", "--set", "train=../asr1/data/train", cwd=ours)

    assert result.returncode == 0, result.stderr
    options = [
        "--data_dir",
        "data/train",
        "--output_dir",
        "raw",
        "--allow_pipes",
        "true",
    ]
    with contextlib.chdir(ours), contextlib.redirect_stdout(io.StringIO()):
        assert format_audio.main(options) == 0
        kept = read_table(Path("raw/wav.scp"))
        audio = [soundfile.read(path)[0] for path in kept.values()]
    assert list(kept) == ["u1", "u2"]
    np.testing.assert_array_equal(*audio)


def test_folders_whose_recordings_share_a_name_are_not_joined(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "wav.scp", f"rec1 {name}.wav\n")
        write(tmp_path / name / f"{name}.wav")
        write(tmp_path / name / "segments", f"{name}1 rec1 0 1\n{name}2 rec1 1 2\n")

    result = prepare("kaldi_dir", "--set", "all=a,b", cwd=tmp_path)

    assert result.returncode == 1
    assert "recording 'rec1' is a/a.wav and b/b.wav" in result.stderr


def test_a_gap_in_utt2spk_is_not_filled(tmp_path):
    kaldi_folder(tmp_path / "a", "a", 2, "s1")
    write(tmp_path / "a" / "utt2spk", "a00 s1\n")
    default = ("--default_speaker", "d")

    assert prepare("kaldi_dir", "--set", "x=a", *default, cwd=tmp_path).returncode == 0

    wav, _, speakers = tables(tmp_path / "data" / "x")
    assert list(wav) == ["a00", "a01"] and speakers == {"a00": "s1"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to prepare"),
        (["--set", "x"], "expected NAME=DIR"),
        (["--set", "x=gone"], "no wav.scp in gone"),
        (["--set", "x=a,a"], "'a00' is repeated"),
        (["--set", "x=a", "x=a"], "there is a set 'x' already"),
        (["--set", "x=a,s"], "with and without segments"),
        (["--split", "a", "--test_share", "1"], "sum below 1"),
    ],
)
def test_what_kaldi_dir_refuses(tmp_path, args, message):
    kaldi_folder(tmp_path / "a", "a", 3, "s1")
    kaldi_folder(tmp_path / "s", "s", 3, "s1")
    write(tmp_path / "s" / "segments", "s00 s00 0 1\n")

    result = prepare("kaldi_dir", *args, cwd=tmp_path)

    assert result.returncode == 1
    assert message in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("corpus", "maker"), [("mine", "kaldi_dir"), ("known", "known"), ("typo", "typo")]
)
def test_options_of_a_corpus_are_enough_to_run_it(tmp_path, corpus, maker):
    """Its folders are made by the recipe of ESPnet that it has already."""
    for name in ("conf/corpora/mine.opts", "local/prepare_known.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    script = f"corpus={corpus}; local_data_opts=; dry_run=true; speaker_model=s\n"

    result = once(tmp_path, script + '. "$1"/stages.sh; stage_prepare_data')

    assert result.returncode == 0, result.stderr
    assert f"local/data.sh --corpus {maker} " in result.stdout
