"""Downloads of published benchmarks become data folders and tables of pairs."""

import soundfile
from corpus_folders import prepare, write
from hub_sounds import level, sound_bytes, write_rows

from espnet_taste.data.kaldi import read_table


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


def test_salmon_of_the_hub_is_unpacked(tmp_path):
    for part in ("rir_consistency", "bg_alignment"):
        columns = {
            "task": [part] * 2,
            "ind": [0, 1],
            "positive_audio": [sound_bytes("WAV", 0.1)] * 2,
            "negative_audio": [sound_bytes("WAV", 0.2)] * 2,
        }
        write_rows(tmp_path / "b" / part / "train-0.parquet", columns)
    args = ("--layout", "salmon", "--set", "salmon", "--corpus_dir", "b")
    args += ("--parts", "rir_consistency", "bg_alignment", "--num_pairs", "2")

    result = prepare("pairs", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    folder = tmp_path / "data" / "salmon"
    wav = read_table(folder / "wav.scp")
    for line in (folder / "pairs").read_text().splitlines():
        _, _, positive, negative = line.split("\t")
        assert (level(wav[positive]), level(wav[negative])) == (0.1, 0.2)
    half = f"{soundfile.info(wav[positive]).duration / 2:.3f}"
    moments = read_table(folder / "moments")
    assert float(half) > 0 and set(moments.values()) == {half, "-"}
    assert moments["rir_consistency-0000-pos"] == half


def test_unpacking_leaves_a_folder_of_others_alone(tmp_path):
    write(tmp_path / "data/mine/wav.scp", "x x.wav\n")
    write(tmp_path / "data/mine/audio/x.wav", "kept")
    write_rows(tmp_path / "b" / "a.parquet", {"id": ["1"]})
    args = ("--layout", "multispeaker", "--set", "mine", "--corpus_dir", "b")

    result = prepare("pairs", *args, cwd=tmp_path)

    assert result.returncode == 1
    assert "data/mine is there already" in result.stderr
    assert (tmp_path / "data/mine/audio/x.wav").read_text() == "kept"


def test_stories_of_the_hub_are_unpacked(tmp_path):
    columns = {"id": ["s1"]}
    for half, value in (("correct", 0.1), ("negative", 0.2)):
        columns[f"{half}_text"] = [f"a {half} end"]
        columns[f"{half}_audio"] = [sound_bytes("FLAC", value)]
    write_rows(tmp_path / "b" / "a.parquet", columns)
    args = ("--layout", "multispeaker", "--set", "voices", "--corpus_dir", "b")

    result = prepare("pairs", *args, cwd=tmp_path)

    assert result.returncode == 0, result.stderr
    folder = tmp_path / "data" / "voices"
    assert level(read_table(folder / "wav.scp")["s1-neg"]) == 0.2
    assert read_table(folder / "text")["s1-pos"] == "a correct end"


def test_recordings_of_a_users_are_not_unpacked_over(tmp_path):
    """They are not yet in a table, which would tell that the folder is taken."""
    mine = tmp_path / "data" / "mine" / "audio" / "take1.wav"
    write(mine)
    columns = {"id": ["s"], "correct_text": ["a"], "negative_text": ["b"]}
    sound = sound_bytes("WAV", 0.1)
    columns |= {"correct_audio": [sound], "negative_audio": [sound]}
    write_rows(tmp_path / "hub" / "a.parquet", columns)
    args = ("--layout", "multispeaker", "--set", "mine", "--corpus_dir", "hub")

    result = prepare("pairs", *args, cwd=tmp_path)

    assert result.returncode == 1
    assert "data/mine/audio is there already" in result.stderr
    assert mine.exists()
    args = (*args[:3], "voices", *args[4:])
    for _ in range(2):
        assert prepare("pairs", *args, cwd=tmp_path).returncode == 0
