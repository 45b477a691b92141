"""What is extracted with other options does not pass for the same."""

import numpy as np
import pytest
import soundfile
import torch

from espnet_taste.bin import (
    extract_codes,
    extract_speakers,
    extract_states,
    extract_units,
)
from espnet_taste.data import ark_writer
from espnet_taste.data.kaldi import read_scp_arrays, write_table
from espnet_taste.data.utterances import Utterances
from espnet_taste.pipeline import tokenizer
from espnet_taste.tasks import tokenizer_builder
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.units import build, speakers


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    soundfile.write(folder / "a.flac", np.full(3200, 0.1), 16000)
    write_table(folder / "wav.scp", {"a": "a.flac"})
    write_table(folder / "text", {"a": "one two"})
    return folder


class Extractor:
    def __init__(self, folder):
        self.unit = float(str(folder)[-1])
        self.device = None

    def to(self, device):
        self.device = device
        return self

    def extract(self, waves):
        return [np.full(5, self.unit)]

    def embed(self, wave):
        return np.full(3, self.unit, np.float32)


class Tokenizer:
    def __init__(self, model_file, device):
        self.code = int(model_file.read_text())

    def open(self, *folders):
        return {"a": None}

    def word_codes(self, items):
        return [np.full((2, 4), self.code)]


def test_units_of_another_extractor_are_refused(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "load_units", Extractor)
    out = tmp_path / "out"
    argv = ["--data_dir", str(data), "--output_dir", str(out), "--units_dir"]

    assert extract_units.main([*argv, "units1"]) == 0
    assert extract_units.main([*argv, "units2"]) == 1

    assert "units_dir units1 -> units2" in capsys.readouterr().err
    assert set(read_scp_arrays(out / "units.scp")["a"]) == {1.0}


def test_a_copied_yaml_is_the_same_encoder_and_an_edited_one_is_not(tmp_path):
    first, copy = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("encoder: whisper\nencoder_conf:\n  a: 1\n  b: 2\nlr: 1\n")
    copy.write_text("encoder_conf: {b: 2, a: 1}\nencoder: whisper\nlr: 2\n")
    chosen = extract_states.chosen_encoder(first)

    assert extract_states.chosen_encoder(copy) == chosen
    copy.write_text("encoder_conf: {b: 2, a: 3}\nencoder: whisper\n")
    assert extract_states.chosen_encoder(copy) != chosen


def test_units_learned_anew_in_the_same_folder_are_refused(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(build, "load_units", Extractor)
    units = tmp_path / "units1"
    units.mkdir()
    (units / "units.safetensors").write_bytes(b"one")
    argv = ["--data_dir", str(data), "--output_dir", str(tmp_path / "out")]
    argv += ["--units_dir", str(units)]
    assert extract_units.main(argv) == 0 == extract_units.main(argv)
    (units / "units.safetensors").write_bytes(b"other")

    assert extract_units.main(argv) == 1
    assert "begun with other settings (units_dir" in capsys.readouterr().err


def test_speakers_of_another_encoder_are_refused(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(speakers, "open_speaker_encoder", Extractor)
    argv = ["--data_dir", str(data), "--output_dir", str(tmp_path / "out"), "--model"]

    assert extract_speakers.main([*argv, "model1"]) == 0
    assert extract_speakers.main([*argv, "model2"]) == 1

    assert "model model1 -> model2" in capsys.readouterr().err


def test_codes_of_other_weights_at_the_same_path_are_refused(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tokenizer, "TokenizerInference", Tokenizer)
    model, out = tmp_path / "model.pth", tmp_path / "out"
    argv = ["--data_dir", str(data), "--output_dir", str(out), "--features_dir", "f"]
    argv += ["--model_file", str(model)]
    assert extract_codes.main(argv) == 1  # a typing error leaves nothing behind
    capsys.readouterr()
    model.write_text("3")

    assert extract_codes.main(argv) == 0 == extract_codes.main(argv)
    model.write_text("4")

    assert extract_codes.main(argv) == 1
    assert "was begun with other settings (model_file" in capsys.readouterr().err
    assert torch.tensor(read_scp_arrays(out / "codes.scp")["a"]).eq(3).all()


@pytest.mark.parametrize("module", [extract_codes, extract_states])
def test_a_killed_run_goes_on_with_the_same_batches(tmp_path, monkeypatch, module):
    """Late chunks end anywhere; a row's last bits depend on its batch."""
    folder, keys = tmp_path / "data", list("abcdefg")
    folder.mkdir()
    for key in keys:
        soundfile.write(folder / f"{key}.flac", np.full(3200, 0.1), 16000)
    write_table(folder / "wav.scp", {key: f"{folder}/{key}.flac" for key in keys})
    write_table(folder / "text", dict.fromkeys(keys, "one two"))
    batches, seen = [], []

    class Tokenizer:
        def __init__(self, *args, **options):
            pass

        def open(self, *folders):
            return dict.fromkeys(keys)

        def word_codes(self, items):
            batches.append("".join(key for key, _ in items))
            return [np.full((2, 4), len(items)) for _ in items]

    class Encoder(torch.nn.Module):
        def forward(self, speech, lengths):
            batches.append("?" * len(speech))
            states = torch.zeros(len(speech), 3, 2)
            return EncoderStates(states, states, torch.full((len(speech),), 3))

    class Writer(ark_writer.ArkWriter):
        """Every array is late, and the third one is the last before a kill."""

        def __init__(self, *args, **options):
            super().__init__(*args, **options, chunk=1)

        def __call__(self, key, array):
            if len(seen) == 3:
                seen.append(None)
                raise KeyboardInterrupt
            seen.append(key)
            super().__call__(key, array)

    monkeypatch.setattr(tokenizer, "TokenizerInference", Tokenizer)
    monkeypatch.setattr(tokenizer_builder, "build_encoder", lambda *_: Encoder())
    monkeypatch.setattr(ark_writer, "ArkWriter", Writer)
    monkeypatch.setattr(module, "ArkWriter", Writer, raising=False)
    (tmp_path / "m").write_text("1")
    (tmp_path / "c.yaml").write_text("encoder: whisper\n")
    argv = ["--data_dir", str(folder), "--output_dir", str(tmp_path / "out")]
    argv += ["--batch_size", "2"]
    if module is extract_codes:
        argv += ["--model_file", str(tmp_path / "m"), "--features_dir", str(tmp_path)]
    else:
        argv += ["--config", str(tmp_path / "c.yaml"), "--whisper", "w"]
    with pytest.raises(KeyboardInterrupt):
        module.main(argv)
    assert [len(batch) for batch in batches] == [2, 2]

    assert module.main(argv) == 0

    assert [len(batch) for batch in batches[2:]] == [2, 2, 1]
    assert seen == [*"abc", None, *"defg"]


def test_a_job_holds_the_tables_of_its_own_utterances(data, tmp_path):
    """Thirty-two jobs that hold a large corpus each fill the memory."""
    write_table(data / "text", {"a": "one two", "b": "three"})
    write_table(data / "wav.scp", {"a": "a.flac", "b": "b.flac"})
    with ark_writer.ArkWriter(tmp_path / "feats", "units", keys=["a", "b"]) as writer:
        for key in ("a", "b"):
            writer(key, np.ones(3, np.float32))

    held = Utterances(data, tmp_path / "feats", ["units"], dict, frozenset("b"))

    assert list(held.text) == list(held.wav) == list(held.features["units"]) == ["b"]
