"""Formatting a data folder: what comes out, what is left out, what stops it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from espnet_taste.bin import format_audio
from espnet_taste.bin.format_audio import main
from espnet_taste.data.data_dir import keys_in, read_data_dir
from espnet_taste.data.kaldi import read_table


def noise(seconds, rate=16000, peak=0.5):
    draw = np.random.default_rng(0)
    return draw.uniform(-peak, peak, round(seconds * rate)).astype(np.float32)


def add(folder, key, samples, rate=16000, text="hello world", **options):
    """Add an utterance to a data folder; text None leaves it out of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / f"{key}.wav", samples, rate, subtype="FLOAT", **options)
    rows = {"wav.scp": f"{key}.wav", "utt2spk": "spk", "text": text}
    for name, value in rows.items():
        if value is not None:
            with (folder / name).open("a") as table:
                table.write(f"{key} {value}\n")
    return folder


def run(data, output, *options):
    return main(["--data_dir", str(data), "--output_dir", str(output), *options])


def reasons(output):
    lines = (output / "excluded.jsonl").read_text().splitlines()
    return {row["key"]: row["reason"] for row in map(json.loads, lines)}


def test_every_rate_and_channel_count_becomes_16_khz_flac(tmp_path, capsys):
    data = tmp_path / "data"
    for rate in (8000, 16000, 22050, 48000):
        add(data, f"u{rate}", noise(0.5, rate), rate)
    add(data, "stereo", np.stack([noise(0.5)] * 2, axis=1))

    assert run(data, tmp_path / "out") == 0

    wav = read_table(tmp_path / "out" / "wav.scp")
    lengths = read_table(tmp_path / "out" / "utt2num_samples")
    assert len(wav) == 5 and list(wav) == sorted(wav)
    for key, path in wav.items():
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert info.frames == int(lengths[key]) and abs(info.frames - 8000) <= 1
    assert read_table(tmp_path / "out" / "text") == dict.fromkeys(wav, "hello world")
    assert list(read_table(tmp_path / "out" / "spk2utt")) == ["spk"]
    assert "kept               5" in capsys.readouterr().out
    samples, _ = soundfile.read(wav["stereo"])
    np.testing.assert_allclose(samples, noise(0.5), atol=1e-4)


def make_bad_folder(data):
    """Every bad utterance that the formatting stage knows, and three good ones."""
    for key in ("good1", "good2", "good3"):
        add(data, key, noise(0.3))
    add(data, "three", noise(3 / 16000))
    add(data, "silent", np.zeros(8000, np.float32))
    add(data, "long", noise(2.1))
    add(data, "none", np.zeros(0, np.float32))
    with_nan = noise(0.3)
    with_nan[100] = np.nan
    add(data, "nan", with_nan)
    add(data, "no_text", noise(0.3), text=None)
    add(data, "empty_text", noise(0.3), text="")
    add(data, "dots", noise(0.3), text="... !")
    add(data, "wordy", noise(0.3), text="a b c d e")
    add(data, "broken", noise(0.3))
    (data / "broken.wav").write_bytes(b"RIFF nothing")
    add(data, "gone", noise(0.3))
    (data / "gone.wav").unlink()
    with (data / "wav.scp").open("a") as table:
        table.write("pipe touch ran; cat good1.wav |\n")
    with (data / "text").open("a") as table:
        table.write("text_only hello\npipe hello\n")
    return {
        "three": "too_short",
        "silent": "silent",
        "long": "too_long",
        "none": "empty",
        "nan": "nan",
        "no_text": "no_transcript",
        "empty_text": "no_transcript",
        "dots": "no_speakable_word",
        "wordy": "too_many_words",
        "broken": "unreadable",
        "gone": "unreadable",
        "text_only": "no_audio",
        "pipe": "pipe_refused",
    }


LIMITS = ["--max_s", "2", "--max_words", "4"]


def test_every_bad_utterance_is_left_out_by_name_and_counted(tmp_path, capsys):
    expected = make_bad_folder(tmp_path / "data")

    status = run(tmp_path / "data", tmp_path / "out", *LIMITS, "--max_excluded", "0.9")

    assert status == 0
    assert reasons(tmp_path / "out") == expected
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["total"] == 16 and summary["kept"] == 3
    assert sum(summary["excluded"].values()) == 13
    kept = ["good1", "good2", "good3"]
    for name in ("wav.scp", "text", "utt2spk", "utt2num_samples"):
        assert list(read_table(tmp_path / "out" / name)) == kept
    assert not (tmp_path / "ran").exists()
    shown = capsys.readouterr().out
    for reason in set(expected.values()):
        assert reason in shown


def test_too_large_a_share_stops_with_the_reasons(tmp_path, capsys):
    make_bad_folder(tmp_path / "data")

    assert run(tmp_path / "data", tmp_path / "out", *LIMITS) == 1

    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("format_audio: 13 of 16 utterances are excluded (")
    assert "--max_excluded" in message


def test_the_share_of_one_job_of_several_is_not_its_own_business(tmp_path):
    make_bad_folder(tmp_path / "data")
    (tmp_path / "keys").write_text("good1\nnan\nthree\n")

    status = run(
        tmp_path / "data", tmp_path / "out", "--key_file", str(tmp_path / "keys")
    )

    assert status == 0
    assert reasons(tmp_path / "out") == {"nan": "nan", "three": "too_short"}
    assert not (tmp_path / "out" / "spk2utt").exists()


def test_segments_are_cut_out(tmp_path):
    data = add(tmp_path / "data", "rec", noise(1.0))
    (data / "segments").write_text("u1 rec 0.25 0.5\nu2 rec 0.5 -1\nu3 rec 3 4\n")
    (data / "text").write_text("u1 one\nu2 two\nu3 three\n")
    (data / "utt2spk").write_text("u1 s\nu2 s\nu3 s\n")

    assert run(data, tmp_path / "out", "--max_excluded", "0.5") == 0

    assert read_table(tmp_path / "out" / "utt2num_samples") == {
        "u1": "4000",
        "u2": "8000",
    }
    assert reasons(tmp_path / "out") == {"u3": "empty"}


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("text", "a again", "text:2: id 'a' is repeated"),
        ("wav.scp", "a again", "wav.scp:2: id 'a' is repeated"),
        ("utt2spk", "a again", "utt2spk:2: id 'a' is repeated"),
    ],
)
def test_repeated_ids_stop_with_file_and_line(tmp_path, capsys, name, line, message):
    data = add(tmp_path / "data", "a", noise(0.3))
    with (data / name).open("a") as table:
        table.write(line + "\n")

    assert run(data, tmp_path / "out") == 1

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("wav.scp", "no wav.scp"),
        ("text", "--need_text false"),
        ("utt2spk", "--speaker_from utterance"),
    ],
)
def test_a_missing_table_stops_with_the_remedy(tmp_path, capsys, missing, remedy):
    data = add(tmp_path / "data", "a", noise(0.3))
    (data / missing).unlink()

    assert run(data, tmp_path / "out") == 1
    assert remedy in capsys.readouterr().err


def test_a_folder_without_transcripts_can_be_formatted_first(tmp_path):
    data = add(tmp_path / "data", "a", noise(0.3))
    (data / "text").unlink()

    assert run(data, tmp_path / "out", "--need_text", "false") == 0

    assert not (tmp_path / "out" / "text").exists()


def test_awkward_ids_become_file_names(tmp_path):
    data = add(tmp_path / "data", "x", noise(0.3))
    for name in ("wav.scp", "text", "utt2spk"):
        table = data / name
        table.write_text(table.read_text().replace("x ", "a/../b%\u00e9 ", 1))

    assert run(data, tmp_path / "out") == 0

    path = read_table(tmp_path / "out" / "wav.scp")["a/../b%\u00e9"]
    assert os.path.isfile(path) and ".." not in path.split("/")


def test_loud_audio_is_clipped_and_counted(tmp_path):
    samples = noise(0.3)
    samples[5:8] = 1.5
    add(tmp_path / "data", "a", samples)

    assert run(tmp_path / "data", tmp_path / "out") == 0

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["samples_clipped"] == 3
    path = read_table(tmp_path / "out" / "wav.scp")["a"]
    np.testing.assert_allclose(soundfile.read(path)[0], samples.clip(-1, 1), atol=1e-4)


def test_finished_utterances_are_not_read_again(tmp_path, monkeypatch):
    for key in "abcd":
        add(tmp_path / "data", key, noise(0.3))
    formatted = []
    real = format_audio._format_one

    def counting(key, *rest):
        formatted.append(key)
        if len(formatted) == 3:
            raise KeyboardInterrupt
        return real(key, *rest)

    monkeypatch.setattr(format_audio, "_format_one", counting)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", tmp_path / "out")
    assert not (tmp_path / "out" / "wav.scp").exists()

    assert run(tmp_path / "data", tmp_path / "out") == 0
    assert formatted == ["a", "b", "c", "c", "d"]
    assert run(tmp_path / "data", tmp_path / "out") == 0
    assert len(formatted) == 5


def test_what_could_not_be_read_is_tried_again(tmp_path):
    """A disk that was not there may be back; nothing else is read again."""
    for key in "abc":
        add(tmp_path / "data", key, noise(0.3))
    hidden = (tmp_path / "data" / "a.wav").rename(tmp_path / "a.wav")
    add(tmp_path / "data", "d", np.zeros(8000, np.float32))

    assert run(tmp_path / "data", tmp_path / "out", "--max_excluded", "0.1") == 1
    assert reasons(tmp_path / "out") == {"a": "unreadable", "d": "silent"}
    hidden.rename(tmp_path / "data" / "a.wav")
    (tmp_path / "data" / "d.wav").unlink()
    assert run(tmp_path / "data", tmp_path / "out", "--max_excluded", "0.3") == 0

    assert reasons(tmp_path / "out") == {"d": "silent"}
    assert list(read_table(tmp_path / "out" / "wav.scp")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("table", "reason"),
    [("wav.scp", "no_audio"), ("text", "no_transcript"), ("utt2spk", "no_speaker")],
)
def test_what_a_table_lacked_is_looked_for_again(tmp_path, table, reason):
    for key in "abc":
        add(tmp_path / "data", key, noise(0.3))
    path = tmp_path / "data" / table
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[1:]))

    assert run(tmp_path / "data", tmp_path / "out", "--max_excluded", "0.1") == 1
    assert reasons(tmp_path / "out") == {"a": reason}
    path.write_text(whole)

    assert run(tmp_path / "data", tmp_path / "out", "--max_excluded", "0.1") == 0
    assert list(read_table(tmp_path / "out" / "wav.scp")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("utt2spk", "b Jane Doe\n", "the speaker of 'b' must be a name without blanks"),
        ("text", "b hello\rworld\n", "'b' holds a line break"),
    ],
)
def test_what_no_table_can_hold_is_refused_before_any_work(
    tmp_path, capsys, monkeypatch, name, line, message
):
    data = add(tmp_path / "data", "a", noise(0.3))
    (data / name).open("a", newline="").write(line)
    monkeypatch.setattr(format_audio, "_format_one", None)

    assert run(data, tmp_path / "out") == 1

    assert message in capsys.readouterr().err


def test_long_ids_of_other_scripts_become_file_names(tmp_path):
    """Quoted, a sign takes nine characters of the 255 that a file name may have."""
    keys = ["\u4f60" * 60 + end for end in "ab"]
    data = tmp_path / "data"
    for key in keys:
        add(data, key, noise(0.3))

    assert run(data, tmp_path / "out") == 0

    assert list(read_table(tmp_path / "out" / "wav.scp")) == keys
    assert format_audio.flac_path(data, "x" * 200).stem == "x" * 200


def test_a_job_reads_the_tables_of_its_part_alone(tmp_path):
    data = tmp_path / "data"
    add(data, "r", noise(1.0))
    add(data, "s", noise(1.0))
    (data / "segments").write_text("a r 0.0 0.5\nb s 0.0 0.5\n")
    for name in ("text", "utt2spk"):
        (data / name).write_text("a x\nb y\n")
    (tmp_path / "keys").write_text("b\n")

    part = read_data_dir(data, keys_in(tmp_path / "keys"))

    assert part.utterances == ["b"] and list(part.wav) == ["s"]
    assert part.text == part.utt2spk == {"b": "y"}
    assert len(part.read("b")) == 8000
    assert list(read_data_dir(data, keys_in(None)).wav) == ["r", "s"]


def test_a_finished_file_that_vanished_is_made_again(tmp_path):
    add(tmp_path / "data", "a", noise(0.3))
    run(tmp_path / "data", tmp_path / "out")
    path = read_table(tmp_path / "out" / "wav.scp")["a"]
    os.unlink(path)

    assert run(tmp_path / "data", tmp_path / "out") == 0
    assert os.path.isfile(path)


def test_other_limits_are_refused_for_the_same_folder(tmp_path, capsys):
    add(tmp_path / "data", "a", noise(0.3))
    run(tmp_path / "data", tmp_path / "out")

    assert run(tmp_path / "data", tmp_path / "out", "--min_s", "0.2") == 1
    assert "min_s 0.1 -> 0.2" in capsys.readouterr().err


def test_the_input_folder_is_never_the_output_folder(tmp_path, capsys):
    data = add(tmp_path / "data", "a", noise(0.3))

    assert run(data, tmp_path / "data" / "." / "") == 1
    assert "must not be --data_dir" in capsys.readouterr().err


def test_help_is_quick_and_names_the_options():
    result = subprocess.run(
        [sys.executable, "-m", "espnet_taste.bin.format_audio", "--help"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 0 and "--max_excluded" in result.stdout
    heavy = "import sys, espnet_taste.bin.format_audio as m; m.get_parser();"
    heavy += (
        "print([n for n in ('torch', 'transformers', 'espnet2') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", heavy], capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]"
