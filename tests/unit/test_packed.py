"""Trained models by what users name: folder, pack, name on the hub; and mistakes."""

import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from fake_hub import FakeHub, ask_only
from tiny_experiment import (
    write_experiment,
    write_speaker_network,
    write_spoken_lm,
    write_whisper,
)
from tiny_taste import noise

from espnet_taste.bin import decode, encode
from espnet_taste.bin.pack import pack_experiment
from espnet_taste.pipeline.editing import swap_words
from espnet_taste.pipeline.packed import find_files
from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.slm.generation import CompletionSettings
from espnet_taste.units.speakers import record_speaker_model, recorded_speaker_model

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working directory with an experiment, its pack and a recording."""
    home = tmp_path_factory.mktemp("home")
    write_experiment(home / "exp" / "mini", write_whisper(home / "whisper"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        pack_experiment(home / "exp" / "mini", None, home / "exp" / "mini.zip")
    soundfile.write(home / "speech.wav", noise(12000), 16000)
    return home


@pytest.fixture(autouse=True)
def places(home, tmp_path, monkeypatch):
    """Nothing is looked for, or left, in the caches of this machine."""
    from huggingface_hub import constants

    monkeypatch.chdir(home)
    monkeypatch.setenv("ESPNET_TASTE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    ask_only(monkeypatch, "http://127.0.0.1:9")


@pytest.fixture
def on_hub(home, tmp_path, monkeypatch):
    """The pack, as a repository."""
    with zipfile.ZipFile(home / "exp" / "mini.zip") as pack:
        files = {name: pack.read(name) for name in pack.namelist()}
    with FakeHub("some/taste", files) as server:
        ask_only(monkeypatch, server.endpoint)
        yield "some/taste"


def use(source, folder):
    """Do what the README does in its first lines; return what was encoded."""
    tokenizer = TasteTokenizer.from_pretrained(source)
    tokens = tokenizer.encode("speech.wav")
    assert tokens.text and tokens.times is not None and tokens.codes.shape[1] == 2
    tokenizer.decode(tokens).save(folder / "again.wav")
    assert soundfile.info(folder / "again.wav").frames > 0

    waves, texts = [noise(9000, seed) for seed in (1, 2)], ["the same text"] * 2
    calm, excited = tokenizer.encode(waves, texts)
    edit, _ = swap_words(calm, excited, words=[1])
    before, after = tokenizer.decode([calm, edit.tokens])
    assert np.array_equal(edit.tokens.codes[1], excited.codes[1])
    assert np.array_equal(edit.tokens.codes[0], calm.codes[0])
    assert len(before.audio) and len(after.audio)
    return tokens


def test_a_spoken_lm_opens_from_any_folder(home, tmp_path, monkeypatch):
    """What its training began with lay below the recipe's folder: not needed."""
    copy = shutil.copytree(home / "exp" / "mini", tmp_path / "exp" / "mini")
    write_spoken_lm(copy, tmp_path / "llm")
    monkeypatch.chdir(tmp_path)
    pack_experiment(copy.relative_to(tmp_path), None, tmp_path / "mini.zip")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")

    found = []
    for source in (copy, tmp_path / "mini.zip"):
        lm = TasteSpokenLM.from_pretrained(source)
        prompt = lm.tokenizer.encode(noise(9000), "so it goes")
        answer = lm.complete(prompt, CompletionSettings(max_words=2, max_tokens=9))
        assert 1 <= len(answer) <= 2
        assert len(lm.tokenizer.decode(prompt + answer).audio)
        found.append((answer.words, lm.log_likelihood(prompt)))
    assert found[0] == found[1]


def test_a_path_may_begin_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("HOME", str(home))

    for source in ("~/exp/mini", "~/exp/mini.zip"):
        TasteTokenizer.from_pretrained(source)


def test_folder_pack_and_hub_give_the_same(home, tmp_path, on_hub):
    folder = use(home / "exp" / "mini", tmp_path)
    packed = use("exp/mini.zip", tmp_path)
    named = use(on_hub, tmp_path)

    for other in (packed, named):
        assert other.words == folder.words
        assert np.array_equal(other.codes, folder.codes)
        # Of the speaker encoder of the training, which went along.
        np.testing.assert_array_equal(other.speaker, folder.speaker)
    assert folder.speaker.shape == (6,)


def test_a_pack_is_unpacked_once_and_a_new_one_again(home, tmp_path):
    pack = tmp_path / "mine.zip"
    shutil.copy(home / "exp" / "mini.zip", pack)
    first = find_files(pack, need_slm=False)
    (first.model_file.parent / "mark").touch()

    again = find_files(pack, need_slm=False)
    assert again == first and (again.model_file.parent / "mark").is_file()
    assert not (tmp_path / "mine").exists()
    with zipfile.ZipFile(pack, "a") as stream:
        stream.writestr("more", "")
    assert find_files(pack, need_slm=False).model_file != first.model_file


def test_the_commands_open_an_experiment(home, tmp_path):
    (tmp_path / "wav.scp").write_text(f"a {home / 'speech.wav'}\n")
    options = ["--model", "exp/mini", "--wav_scp", str(tmp_path / "wav.scp")]
    out = str(tmp_path / "out")

    assert encode.main([*options, "--output_dir", out]) == 0
    tokens = ["--tokens", f"{out}/tokens.jsonl", "--output_dir", str(tmp_path / "wavs")]
    assert decode.main(["--model", "exp/mini", *tokens]) == 0
    assert (tmp_path / "wavs" / "audio" / "a.flac").is_file()


def test_another_speaker_encoder_may_be_named(home, tmp_path, capsys):
    (tmp_path / "wav.scp").write_text(f"a {home / 'speech.wav'}\n")
    other = write_speaker_network(tmp_path / "other.onnx", 5)
    options = ["--model", "exp/mini", "--wav_scp", str(tmp_path / "wav.scp")]
    out = ["--output_dir", str(tmp_path / "out"), "--speaker_model", str(other)]

    assert encode.main([*options, *out]) == 1
    excluded = (tmp_path / "out" / "excluded.jsonl").read_text()
    assert "5 values, this tokenizer was trained with 6" in excluded


def test_a_vocoder_may_be_given_or_left_out():
    tokenizer = TasteTokenizer.from_pretrained("exp/mini", vocoder=None)

    assert tokenizer.synthesize is None


@pytest.mark.parametrize(
    ("option", "value"), [("whisper", "w"), ("language", "de"), ("window", "trimmed")]
)
def test_options_of_released_checkpoints_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}: only for released checkpoints"):
        TasteTokenizer.from_pretrained("exp/mini", **{option: value})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("exp/typo", "no model at exp/typo; give an experiment folder"),
        ("egs2/taste/exp/typo", "no model at egs2/taste/exp/typo; give an exp"),
        ("typo", "no model at typo; give an experiment folder"),
        ("./some/model", "no model at ./some/model"),
        ("exp/gone.zip", "no packed model at exp/gone.zip"),
        ("whisper", "no whisper/taste/config.yaml; run the recipe"),
        ("any/thing", "nothing here is called 'any/thing', and no packed model"),
    ],
)
def test_what_is_not_there_is_named(source, words):
    with pytest.raises(FileNotFoundError) as error:
        TasteTokenizer.from_pretrained(source)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_part_of_an_experiment_names_the_whole(tmp_path):
    (tmp_path / "taste").mkdir()
    (tmp_path / "taste" / "config.yaml").touch()

    with pytest.raises(FileNotFoundError, match="the folder above it, /") as error:
        TasteTokenizer.from_pretrained(tmp_path / "taste")
    assert str(error.value).endswith(str(tmp_path.resolve()))


def test_a_repository_without_a_pack_is_named(monkeypatch):
    with FakeHub("some/text", {"README.md": b"nothing"}) as server:
        ask_only(monkeypatch, server.endpoint)
        with pytest.raises(FileNotFoundError, match="'some/text'.*no meta.yaml"):
            TasteTokenizer.from_pretrained("some/text")


def test_a_file_of_another_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="speech.wav is a file, but no .zip"):
        TasteTokenizer.from_pretrained("speech.wav")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="no.zip is no packed model"):
        TasteTokenizer.from_pretrained(tmp_path / "no.zip")


def test_a_speaker_encoder_is_remembered(tmp_path):
    record = record_speaker_model("resemblyzer/ge2e", tmp_path / "named")
    assert recorded_speaker_model(record) == "resemblyzer/ge2e"
    with pytest.raises(FileNotFoundError, match="gone.onnx"):
        record_speaker_model("gone.onnx", tmp_path / "gone")
    record.write_text("[]")
    with pytest.raises(ValueError, match="names no speaker_model"):
        recorded_speaker_model(record)
