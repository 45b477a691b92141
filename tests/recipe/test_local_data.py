"""Corpus preparation, each on a folder laid out as the corpus is."""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shell_checker import shellcheck

from espnet_taste.bin import format_audio
from espnet_taste.data.kaldi import read_table

ROOT = Path(__file__).parents[2]


def prepare(corpus, *args, cwd):
    """Run a preparation script in this process, in the folder ``cwd``."""
    path = ROOT / "local" / f"prepare_{corpus}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stderr = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stderr(stderr):
        status = module.main([str(arg) for arg in args])
    return subprocess.CompletedProcess(args, status, "", stderr.getvalue())


def data_sh(*args, cwd):
    """Run local/data.sh as the recipe does, with this interpreter."""
    return subprocess.run(
        ["bash", str(ROOT / "local" / "data.sh"), *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "python": sys.executable, "PYTHONPATH": str(ROOT)},
    )


def tables(folder):
    return tuple(read_table(folder / name) for name in ("wav.scp", "text", "utt2spk"))


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_unknown_corpus_lists_the_known_ones(tmp_path):
    result = data_sh("--corpus", "nowhere", cwd=tmp_path)

    assert result.returncode == 2
    known = (
        "emilia kaldi_dir librispeech libritts ljspeech mini_an4 pairs questions vctk"
    )
    assert result.stderr.strip().endswith(known)


def test_a_missing_corpus_is_one_line(tmp_path):
    args = ("--corpus", "ljspeech", "--corpus_dir", "gone")
    result = data_sh(*args, cwd=tmp_path)

    assert result.returncode == 1
    assert result.stderr.startswith("prepare_ljspeech: --corpus_dir gone is no folder")


def test_data_sh_passes_its_options_on(tmp_path):
    kaldi_folder(tmp_path / "with blank", "a", 3, "s1")

    args = ("--corpus", "kaldi_dir", "--set", "x=with blank")
    assert data_sh(*args, cwd=tmp_path).returncode == 0
    assert tables(tmp_path / "data" / "x")[0]["a00"] == "with blank/x.wav"


AN4 = {
    "etc/an4_train.transcription": "<s> YES </s> (an1-fash-b)\n"
    "<s> GO ON </s> (an2-fash-b)\n\n<s> C TEN </s> (cen8-mwhw-b)\n",
    "etc/an4_test.transcription": "ELEVEN (cen8-fcaw-b)\n",
    "README": "an4",
}


def make_an4(path):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in AN4.items():
            info = tarfile.TarInfo(f"downloads/an4/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


def test_mini_an4(tmp_path):
    make_an4(tmp_path / "a.tar.gz")

    result = prepare("mini_an4", "--archive", "a.tar.gz", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "train_nodev")
    assert text == {"fash-an2-b": "go on", "mwhw-cen8-b": "c ten"}
    genders = read_table(tmp_path / "data" / "train_nodev" / "spk2gender")
    assert genders == {"fash": "f", "mwhw": "m"}
    assert speakers == {"fash-an2-b": "fash", "mwhw-cen8-b": "mwhw"}
    assert wav["fash-an2-b"] == "downloads/an4/wav/an4_clstk/fash/an2-fash-b.sph"
    assert list(tables(tmp_path / "data" / "train_dev")[1]) == ["fash-an1-b"]
    wav, text, _ = tables(tmp_path / "data" / "test")
    assert text == {"fcaw-cen8-b": "eleven"}
    assert wav["fcaw-cen8-b"].endswith("an4test_clstk/fcaw/cen8-fcaw-b.sph")


def test_a_set_of_another_corpus_is_not_written_over(tmp_path):
    make_an4(tmp_path / "a.tar.gz")
    kaldi_folder(tmp_path / "mine", "a", 3, "s1")
    again = ("kaldi_dir", "--set", "more=mine", "test=mine")
    for _ in range(2):  # once more, as after a kill
        assert (
            prepare("mini_an4", "--archive", "a.tar.gz", cwd=tmp_path).returncode == 0
        )

    result = prepare(*again, cwd=tmp_path)

    assert result.returncode == 1
    assert "data/test is there already, made of mini_an4" in result.stderr
    assert "--datadir" in result.stderr
    assert tables(tmp_path / "data" / "test")[1] == {"fcaw-cen8-b": "eleven"}
    assert not (tmp_path / "data" / "more").exists()
    assert prepare(*again, "--data_root", "own", cwd=tmp_path).returncode == 0
    (tmp_path / "own" / "test" / ".corpus").unlink()
    assert (
        "made by hand or by an older"
        in prepare(*again, "--data_root", "own", cwd=tmp_path).stderr
    )


def test_mini_an4_without_an_espnet_tree_says_what_to_set(tmp_path):
    result = prepare("mini_an4", "--archive", "none.tar.gz", cwd=tmp_path)

    assert result.returncode == 1 and "set ESPNET_ROOT" in result.stderr


def test_ljspeech(tmp_path):
    lines = [f"LJ001-{n:04}|No. {n}|Number {n}" for n in range(6)]
    write(tmp_path / "lj" / "metadata.csv", "\n".join(lines) + "\n")

    args = ("--corpus_dir", "lj", "--num_held_out", "2")
    result = prepare("ljspeech", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    data = tmp_path / "data"
    assert [list(tables(data / name)[0]) for name in ("tr_no_dev", "dev", "eval1")] == [
        ["LJ001-0000", "LJ001-0001"],
        ["LJ001-0002", "LJ001-0003"],
        ["LJ001-0004", "LJ001-0005"],
    ]
    wav, text, speakers = tables(data / "dev")
    assert wav["LJ001-0002"] == "lj/wavs/LJ001-0002.wav"
    assert text["LJ001-0002"] == "Number 2" and speakers["LJ001-0002"] == "LJ"


def test_librispeech_parts(tmp_path):
    for part, reader in (("train-clean-100", 103), ("dev-other", 7), ("test-clean", 8)):
        chapter = tmp_path / "LS" / part / str(reader) / "1240"
        key = f"{reader}-1240"
        lines = f"{key}-0000 CHAPTER ONE\n{key}-0001 IT'S\n"
        write(chapter / f"{key}.trans.txt", lines)
    readers = ";ID  |SEX| SUBSET\n103 | F | train-clean-100 | 25.1 | |A|b\n8  | M | x\n"
    write(tmp_path / "LS" / "SPEAKERS.TXT", readers)
    args = ["--corpus_dir", "LS", "--train", "train-clean-100", "--dev", "dev-other"]
    args += ["--test", "test-clean"]

    result = prepare("librispeech", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "train")
    assert text == {"103-1240-0000": "chapter one", "103-1240-0001": "it's"}
    assert set(speakers.values()) == {"103"}
    assert wav["103-1240-0001"] == "LS/train-clean-100/103/1240/103-1240-0001.flac"
    assert len(tables(tmp_path / "data" / "test_clean")[0]) == 2
    data = tmp_path / "data"
    assert read_table(data / "train" / "spk2gender") == {"103": "f"}
    assert read_table(data / "test_clean" / "spk2gender") == {"8": "m"}
    assert not (data / "dev" / "spk2gender").exists()
    write(tmp_path / "LS" / "SPEAKERS.TXT", "103 | woman\n")
    broken = prepare("librispeech", *args, cwd=tmp_path)
    assert broken.returncode == 1 and "SPEAKERS.TXT:1: expected 'id |" in broken.stderr

    result = prepare("librispeech", "--corpus_dir", "LS", cwd=tmp_path)
    assert result.returncode == 1 and "no LS/train-clean-360" in result.stderr


def test_libritts_parts(tmp_path):
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        folder = tmp_path / "LT" / part / "84" / "121123"
        write(folder / "84_121123_000007_000001.wav")
        write(folder / "84_121123_000007_000001.normalized.txt", "Go? He did.\n")
        write(folder / "84_121123_000008_000000.wav")
    args = ["--corpus_dir", "LT", "--train", "train-clean-100"]
    args += ["--test", "test-clean"]

    result = prepare("libritts", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "train")
    assert len(wav) == 2 and set(speakers.values()) == {"84"}
    assert text == {"84_121123_000007_000001": "Go? He did."}


@pytest.mark.parametrize("new", [False, True])
def test_vctk(tmp_path, new):
    for reader in ("p225", "p315"):
        for number in range(1, 6):
            key = f"{reader}_{number:03}"
            if new:
                for mic in ("mic1", "mic2"):
                    name = f"wav48_silence_trimmed/{reader}/{key}_{mic}.flac"
                    write(tmp_path / "V" / name)
            else:
                write(tmp_path / "V" / f"wav48/{reader}/{key}.wav")
            if reader == "p225":
                write(tmp_path / "V" / f"txt/{reader}/{key}.txt", f"Say {number}.\n")

    args = ("--corpus_dir", "V", "--num_held_out", "1")
    result = prepare("vctk", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    data = tmp_path / "data"
    wav, text, _ = tables(data / "tr_no_dev")
    assert len(wav) == 8 and list(text) == ["p225_001", "p225_002", "p225_003"]
    assert list(tables(data / "dev")[0]) == ["p225_004"]
    assert tables(data / "eval1")[1] == {"p225_005": "Say 5."}


@pytest.mark.parametrize("listed", [False, True])
def test_emilia(tmp_path, listed):
    rows = [
        {"id": f"EN_S{n:02}", "speaker": f"EN_{n % 3}", "text": f" Hi {n}."}
        for n in range(30)
    ]
    folder = tmp_path / "E" / "EN_B00000"
    if listed:
        rows = [{**row, "wav": f"EN_B00000/mp3/{row['id']}.mp3"} for row in rows]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write(tmp_path / "E" / "EN_B00000.jsonl", lines)
    else:
        for row in rows:
            write(folder / f"{row['id']}.json", json.dumps(row))
    args = ["--corpus_dir", "E", "--valid_share", "0.2", "--test_share", "0.2"]

    result = prepare("emilia", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    found = {}
    for name in ("train", "valid", "test"):
        wav, text, _ = tables(tmp_path / "data" / name)
        assert wav and text.keys() == wav.keys()
        found |= wav
    assert len(found) == 30
    middle = "EN_B00000/mp3" if listed else "EN_B00000"
    assert found["EN_S07"] == f"E/{middle}/EN_S07.mp3"


def test_emilia_names_a_broken_line_and_packed_archives(tmp_path):
    write(tmp_path / "E" / "a.tar")
    result = prepare("emilia", "--corpus_dir", "E", cwd=tmp_path)
    assert result.returncode == 1 and "unpack its tar files" in result.stderr

    write(tmp_path / "E" / "a.jsonl", '{"id": "x"}\n')
    result = prepare("emilia", "--corpus_dir", "E", cwd=tmp_path)
    assert result.returncode == 1 and "a.jsonl:1: expected JSON" in result.stderr


def kaldi_folder(folder, prefix, number, speaker):
    for name, value in (("wav.scp", "x.wav"), ("text", "hi"), ("utt2spk", speaker)):
        rows = (f"{prefix}{n:02} {value}\n" for n in range(number))
        write(folder / name, "".join(rows))
    write(folder / "x.wav")
    return folder


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


def test_pairs_of_a_benchmark(tmp_path):
    for number in range(2):
        for half in range(2):
            write(tmp_path / f"b/rir_consistency/sample_{number}_{half}.wav")
    args = ("--layout", "salmon", "--set", "salmon", "--corpus_dir", "b")

    result = prepare("pairs", *args, "--num_pairs", "2", cwd=tmp_path)
    assert result.returncode == 1
    assert "b: no bg_alignment, bg_all_consistency" in result.stderr
    args += ("--parts", "rir_consistency")
    result = prepare("pairs", *args, cwd=tmp_path)
    assert result.returncode == 1
    assert "rir_consistency has 2, expected 200" in result.stderr
    result = prepare("pairs", *args, "--num_pairs", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr

    folder = tmp_path / "data" / "salmon"
    wav = read_table(folder / "wav.scp")
    pairs = [line.split("\t") for line in (folder / "pairs").read_text().splitlines()]
    assert [fields[1] for fields in pairs] == ["rir_consistency"] * 2
    assert wav[pairs[1][2]].endswith("sample_1_0.wav")
    assert wav[pairs[1][3]].endswith("sample_1_1.wav")
    assert len(wav) == 4 and not (folder / "text").exists()


def test_storycloze_says_which_it_is_and_that_nobody_counted(tmp_path, capsys):
    for name in ("0_a_correct.wav", "1_b_incorrect.wav"):
        write(tmp_path / "b" / name)
    args = ("--layout", "storycloze", "--set", "stories", "--corpus_dir", "b")

    result = prepare("pairs", *args, cwd=tmp_path)
    assert result.returncode == 1 and "--test sSC or tSC must say" in result.stderr
    result = prepare("pairs", *args, "--test", "tSC", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "is not known here: --num_pairs checks it" in capsys.readouterr().out
    pairs = (tmp_path / "data" / "stories" / "pairs").read_text()
    assert pairs.split("\t")[1] == "tSC"
    args += ("--test", "tSC", "--num_pairs", "1871")
    result = prepare("pairs", *args, cwd=tmp_path)
    assert result.returncode == 1 and "1 pairs, expected 1871" in result.stderr


def test_texts_of_zerospeech_are_written(tmp_path):
    write(tmp_path / "b/a.wav")
    write(tmp_path / "b/b.wav")
    table = (
        "id,filename,voice,transcription,correct\n1,a,v,He goes.,1\n1,b,v,He go.,0\n"
    )
    write(tmp_path / "b/gold.csv", table)
    args = ("--layout", "zerospeech", "--set", "sBLIMP", "--corpus_dir", "b")

    result = prepare("pairs", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    text = read_table(tmp_path / "data" / "sBLIMP" / "text")
    assert text == {"sBLIMP-1-v-neg": "He go.", "sBLIMP-1-v-pos": "He goes."}


def test_a_missing_benchmark_says_where_it_is_from(tmp_path):
    result = prepare("pairs", "--layout", "storycloze", "--set", "s", cwd=tmp_path)
    assert result.returncode == 1
    assert "github.com/slp-rl/SpokenStoryCloze" in result.stderr


def test_shellcheck():
    script = str(ROOT / "local" / "data.sh")
    result = subprocess.run(
        [shellcheck(), "-e", "SC1091,SC2086,SC2154", script],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert len(Path(script).read_text().splitlines()) <= 40
