"""Data folders: where the utterances and their speakers come from."""

import json

import numpy as np
import pytest
import soundfile

from espnet_taste.data.audio import AudioError
from espnet_taste.data.data_dir import (
    finish_joined,
    read_data_dir,
    select_keys,
    speaker_of,
    write_speakers,
)
from espnet_taste.data.exclusions import ExclusionError
from espnet_taste.data.kaldi import read_table


def make(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_ids_of_audio_and_of_text_are_all_utterances(tmp_path):
    data = read_data_dir(make(tmp_path, wav_scp="b x\na y\n", text="c hi\nb yes\n"))

    assert data.utterances == ["a", "b", "c"]
    assert data.utt2spk is None
    with pytest.raises(AudioError, match="no_audio: not in wav.scp"):
        data.read("c")


def test_with_segments_recordings_are_no_utterances(tmp_path):
    data = read_data_dir(
        make(
            tmp_path,
            wav_scp="rec x\n",
            segments="b rec 1.5 -1\na rec 0 1.5\nc gone 0 1\n",
            text="d hi\n",
        )
    )

    assert data.utterances == ["a", "b", "c", "d"]
    assert data.segments["b"] == ("rec", 1.5, -1.0)
    with pytest.raises(AudioError, match="no_audio: recording 'gone' is not in"):
        data.read("c")
    with pytest.raises(AudioError, match="no_audio: in text, but not in segments"):
        data.read("d")


@pytest.mark.parametrize(
    "line", ["a rec 2 1", "a rec 1 1", "a rec 1", "a rec x 2", "a"]
)
def test_a_bad_segment_names_file_and_line(tmp_path, line):
    with pytest.raises(ValueError, match=f"segments: expected .*{line}"):
        read_data_dir(make(tmp_path, wav_scp="rec x\n", segments=line + "\n"))


def test_a_folder_without_wav_scp_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no wav.scp in"):
        read_data_dir(tmp_path)


def test_a_job_gets_its_keys_sorted_and_unknown_ones_are_named(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("c\na anything\n")

    assert select_keys(["c", "b", "a"], None) == ["a", "b", "c"]
    assert select_keys(["c", "b", "a"], keys) == ["a", "c"]
    with pytest.raises(ValueError, match="1 ids are not .*'c'"):
        select_keys(["b", "a"], keys)


@pytest.mark.parametrize(
    ("speaker", "speaker_from", "expected"),
    [
        ("103-1240", "utt2spk", "103-1240"),
        ("103-1240", "strip_chapter", "103"),
        ("103_1240", "strip_chapter", "103"),
        ("a-b-7", "strip_chapter", "a-b"),
        ("103", "utterance", "u"),
    ],
)
def test_speakers(speaker, speaker_from, expected):
    assert speaker_of("u", {"u": speaker}, speaker_from) == expected


def test_speakers_that_cannot_be_told(tmp_path):
    with pytest.raises(ExclusionError, match="no_speaker"):
        speaker_of("u", {"v": "x"}, "utt2spk")
    with pytest.raises(ValueError, match="'x' of 'u' has no chapter"):
        speaker_of("u", {"u": "x"}, "strip_chapter")


def test_the_inverse_table(tmp_path):
    write_speakers(tmp_path, {"b": "s", "a": "s", "c": "t"}, inverse=True)

    assert read_table(tmp_path / "spk2utt") == {"s": "a b", "t": "c"}


def test_joined_jobs_get_their_inverse_table_and_their_limit(tmp_path, capsys):
    (tmp_path / "utt2spk").write_text("b s\na s\n")
    summary = {"total": 4, "kept": 3, "excluded": {"nan": 1}, "max_excluded": "0.25"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))

    finish_joined(tmp_path)

    assert read_table(tmp_path / "spk2utt") == {"s": "a b"}
    assert "nan" in capsys.readouterr().out
    summary["max_excluded"] = "0.2"
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="1 of 4 utterances are excluded"):
        finish_joined(tmp_path)


def test_joined_jobs_of_another_kind_are_left_alone(tmp_path):
    (tmp_path / "summary.json").write_text('{"frames": 3}')

    finish_joined(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_command_runs_once_for_neighbouring_segments(tmp_path):
    """As sph2pipe over hours of conversation, of which each segment is seconds."""
    samples = np.arange(16000) / 16000
    for name in ("x", "y"):
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    command = f"echo {{0}} >> {tmp_path}/log; cat {tmp_path}/{{0}}.wav |"
    wav = "".join(f"{name} {command.format(name)}\n" for name in ("x", "y"))
    segments = "x-1 x 0.1 0.2\nx-2 x 0.5 -1\ny-1 y 0.1 0.2\n"
    data = read_data_dir(make(tmp_path, wav_scp=wav, segments=segments))

    pieces = [data.read(key, allow_pipes=True) for key in ("x-1", "x-2", "y-1", "x-1")]

    assert (tmp_path / "log").read_text().split() == ["x", "y", "x"]
    assert list(map(len, pieces)) == [1600, 8000, 1600, 1600]
    for piece in (pieces[0], pieces[3]):
        np.testing.assert_allclose(piece, samples[1600:3200], atol=1e-4)
    pieces[3][:] = 0  # a caller's own
    assert data.read("x-1", allow_pipes=True).any()
