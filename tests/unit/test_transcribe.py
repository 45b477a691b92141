"""The transcription command: text for folders that have none."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from espnet_taste.align.transcripts import FULL_S, WhisperTranscriber
from espnet_taste.bin import transcribe
from espnet_taste.bin.transcribe import main
from espnet_taste.data.kaldi import read_table


class CountingTranscriber:
    """Writes how many samples it heard; nothing for the shortest."""

    def __init__(self):
        self.batches = []

    def transcribe(self, audios):
        self.batches.append([len(audio) for audio in audios])
        return ["" if len(a) == 1600 else f"heard {len(a)}" for a in audios]


@pytest.fixture
def transcriber(monkeypatch):
    made = CountingTranscriber()
    monkeypatch.setattr(transcribe, "build_transcriber", lambda args: made)
    return made


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = {name: "" for name in ("wav.scp", "utt2spk", "utt2num_samples")}
    for key, length in (("a", 4800), ("b", 1600), ("c", 3200), ("d", 1700), ("e", 9)):
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, length)
        soundfile.write(folder / f"{key}.flac", samples, 16000)
        rows["wav.scp"] += f"{key} {key}.flac\n"
        rows["utt2spk"] += f"{key} s\n"
        rows["utt2num_samples"] += f"{key} {length}\n"
    for name, lines in rows.items():
        (folder / name).write_text(lines)
    (folder / "e.flac").write_bytes(b"broken")
    return folder


def run(data, output, *options):
    argv = ["--data_dir", data, "--output_dir", output, *options]
    return main([str(arg) for arg in argv])


def test_what_is_heard_becomes_text_and_the_rest_is_counted(
    tmp_path, data, transcriber
):
    out = tmp_path / "out"
    assert run(data, out, "--batch_size", "2", "--max_excluded", "0.5") == 0

    heard = {"a": "heard 4800", "c": "heard 3200", "d": "heard 1700"}
    assert read_table(out / "text") == heard
    for name in ("wav.scp", "utt2spk", "utt2num_samples"):
        assert list(read_table(out / name)) == ["a", "c", "d"]
    rows = [json.loads(li) for li in (out / "excluded.jsonl").read_text().splitlines()]
    assert {row["key"]: row["reason"] for row in rows} == {
        "b": "no_transcript",
        "e": "unreadable",
    }
    assert transcriber.batches == [[1600], [1700, 3200], [4800]]


def test_it_goes_on_after_a_kill(tmp_path, data, transcriber, monkeypatch):
    out = tmp_path / "out"
    real = transcriber.transcribe

    def dying(audios):
        if len(transcriber.batches) == 2:
            raise KeyboardInterrupt
        return real(audios)

    monkeypatch.setattr(transcriber, "transcribe", dying)
    options = ("--batch_size", "2", "--max_excluded", "0.5")
    with pytest.raises(KeyboardInterrupt):
        run(data, out, *options)
    monkeypatch.setattr(transcriber, "transcribe", real)

    assert run(data, out, *options) == 0
    assert transcriber.batches == [[1600], [1700, 3200], [4800]]
    assert list(read_table(out / "text")) == ["a", "c", "d"]


def test_what_could_not_be_read_is_heard_by_the_next_run(tmp_path, data, transcriber):
    out = tmp_path / "out"
    assert run(data, out, "--max_excluded", "0.3") == 1
    soundfile.write(data / "e.flac", np.full(2000, 0.1), 16000)
    transcriber.batches.clear()

    assert run(data, out, "--max_excluded", "0.3") == 0

    assert transcriber.batches == [[2000]]
    assert list(read_table(out / "text")) == ["a", "c", "d", "e"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max_excluded", "0.3"], "2 of 5 utterances are excluded"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_refusals(tmp_path, data, transcriber, capsys, options, message):
    assert run(data, tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err


def test_an_unformatted_folder_is_refused(tmp_path, data, transcriber, capsys):
    (data / "utt2num_samples").unlink()

    assert run(data, tmp_path / "out") == 1
    assert "run it first" in capsys.readouterr().err


def test_an_incomplete_recogniser_is_named(tmp_path, data, capsys):
    assert run(data, tmp_path / "out", "--asr_config", tmp_path / "c.yaml") == 1
    assert "needs --asr_config and --asr_model_file" in capsys.readouterr().err


def test_audio_that_fills_whispers_window_is_heard_in_two_parts():
    """Of 30.0 s of read speech it wrote one word, where it had 80 of 29.8 s."""
    full = np.sin(np.arange(round(FULL_S * 16000) + 16000)).astype(np.float32)
    full[200000:203200] = 0.0  # the pause in which it is cut
    short = full[: round(FULL_S * 16000)]
    heard = []

    class Whisper:
        device, dtype = "cpu", torch.float32

        def generate(self, features, **options):
            return features

    whisper = WhisperTranscriber.__new__(WhisperTranscriber)
    whisper.whisper, whisper.options = Whisper(), {}
    whisper._texts = lambda ids: [f"t{int(number)}" for number in ids]

    def features(audios, **options):
        heard.extend(audios)
        return SimpleNamespace(input_features=torch.arange(float(len(audios))))

    whisper.features = features

    assert whisper.transcribe([short, full, short]) == ["t0", "t1 t2", "t3"]
    assert np.array_equal(np.concatenate(heard[1:3]), full)
    assert 201500 < len(heard[1]) < 201700 and np.array_equal(heard[0], short)
