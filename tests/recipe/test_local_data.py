"""Corpus preparation, each on a folder laid out as the corpus is."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from corpus_folders import ROOT, kaldi_folder, prepare, tables, write
from shell_checker import shellcheck

from espnet_taste.data.kaldi import read_table


def data_sh(*args, cwd):
    """Run local/data.sh as the recipe does, with this interpreter."""
    return subprocess.run(
        ["bash", str(ROOT / "local" / "data.sh"), *args],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "python": sys.executable, "PYTHONPATH": str(ROOT)},
    )


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


def test_audio_of_librispeech_that_no_line_lists_is_not_passed_over(tmp_path):
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        chapter = tmp_path / "L" / part / "8" / "1"
        write(chapter / "8-1.trans.txt", "8-1-0 A\n8-1-2 B\n")
        for number in (0, 1):
            write(chapter / f"8-1-{number}.flac")
    args = ["--corpus_dir", "L", "--train", "train-clean-100", "--dev", "dev-clean"]

    result = prepare("librispeech", *args, "--test", "test-clean", cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "train")
    assert text == {"8-1-0": "a", "8-1-2": "b"}
    # The formatting stage counts 8-1-1, and 8-1-2, whose audio is not there.
    assert wav.keys() == speakers.keys() == {"8-1-0", "8-1-1", "8-1-2"}


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


@pytest.mark.parametrize("corpus", ["librispeech", "libritts"])
def test_a_part_that_was_not_unpacked_is_not_passed_over(tmp_path, corpus):
    for part in ("train-clean-100", "dev-clean", "test-clean"):
        chapter = tmp_path / "L" / part / "8" / "1"
        write(chapter / "8-1.trans.txt", "8-1-0 A\n")
        write(chapter / "8_1_0.wav")
    (tmp_path / "L" / "train-clean-360").mkdir()
    args = ["--corpus_dir", "L", "--train", "train-clean-100", "train-clean-360"]
    args += ["--dev", "dev-clean", "--test", "test-clean"]

    result = prepare(corpus, *args, cwd=tmp_path)

    assert result.returncode == 1
    assert "no utterances in L/train-clean-360; unpack it" in result.stderr


def test_a_chapter_of_librispeech_without_transcripts_is_named(tmp_path):
    write(tmp_path / "L" / "train-clean-100" / "8" / "1" / "8-1.trans.txt", "8-1-0 A\n")
    write(tmp_path / "L" / "train-clean-100" / "8" / "2" / "8-2-0.flac")
    args = ["--corpus_dir", "L", "--train", "train-clean-100", "--dev", "dev-clean"]

    result = prepare("librispeech", *args, cwd=tmp_path)

    assert result.returncode == 1
    assert "no L/train-clean-100/8/2/8-2.trans.txt" in result.stderr


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
    # ESPnet's recipe has them in this order.
    assert list(tables(data / "eval1")[0]) == ["p225_004"]
    assert tables(data / "dev")[1] == {"p225_005": "Say 5."}


@pytest.mark.parametrize("name", ["id", "_id"])  # of Emilia and of Emilia-YODAS
@pytest.mark.parametrize("listed", [False, True])
def test_emilia(tmp_path, listed, name):
    rows = [
        {name: f"EN_S{n:02}", "speaker": f"EN_{n % 3}", "text": f" Hi {n}."}
        for n in range(30)
    ]
    folder = tmp_path / "E" / "EN_B00000"
    if listed:
        rows = [{**row, "wav": f"EN_B00000/mp3/{row[name]}.mp3"} for row in rows]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write(tmp_path / "E" / "EN_B00000.jsonl", lines)
    else:
        for row in rows:
            write(folder / f"{row[name]}.json", json.dumps(row))
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


@pytest.mark.parametrize("listed", [False, True])
def test_audio_of_emilia_that_nothing_describes_is_not_passed_over(tmp_path, listed):
    row = {"id": "a", "speaker": "s", "text": "Hi.", "wav": "EN/mp3/a.mp3"}
    place = "EN.jsonl" if listed else "EN/mp3/a.json"
    write(tmp_path / "E" / place, json.dumps(row) + "\n" * listed)
    for name in ("a", "b"):
        write(tmp_path / "E" / "EN" / "mp3" / f"{name}.mp3")
    args = ["--corpus_dir", "E", "--valid_share", "0", "--test_share", "0"]

    result = prepare("emilia", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    wav, text, speakers = tables(tmp_path / "data" / "train")
    assert wav == {"a": "E/EN/mp3/a.mp3", "b": "E/EN/mp3/b.mp3"}
    assert text == {"a": "Hi."} and speakers == {"a": "s"}


def test_emilia_names_a_broken_line_and_packed_archives(tmp_path):
    write(tmp_path / "E" / "EN" / "a.tar")
    result = prepare("emilia", "--corpus_dir", "E", cwd=tmp_path)
    assert result.returncode == 1 and "unpack its tar files" in result.stderr

    write(tmp_path / "E" / "a.jsonl", '{"id": "x"}\n')
    result = prepare("emilia", "--corpus_dir", "E", cwd=tmp_path)
    assert result.returncode == 1 and "a.jsonl:1: expected JSON" in result.stderr


def test_shellcheck():
    script = str(ROOT / "local" / "data.sh")
    result = subprocess.run(
        [shellcheck(), "-e", "SC1091,SC2086,SC2154", script],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert len(Path(script).read_text().splitlines()) <= 40
