"""Experiment folders and packs: with and without spoken LM, and which checkpoint."""

import zipfile

import pytest
import yaml

from espnet_taste.bin.pack import main
from espnet_taste.pipeline.packed import find_files

BEST = "valid.loss.best.pth"


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment folder with both checkpoints of its tokenizer, no spoken LM."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp"
    for part in ("taste", "vocoder", "units"):
        (folder / part).mkdir(parents=True)
    for part in ("taste", "vocoder"):
        (folder / part / "config.yaml").write_text("seed: 1\n")
        (folder / part / BEST).write_text(part)
    (folder / "taste" / "valid.acc.best.pth").write_text("accurate")
    for name in ("config.json", "units.safetensors"):
        (folder / "units" / name).write_text("{}")
    return folder


def add_slm(folder):
    (folder / "slm").mkdir()
    (folder / "slm" / "config.yaml").write_text("seed: 1\n")
    (folder / "slm" / BEST).write_text("slm")


def pack(folder, *options):
    argv = ["--exp_dir", str(folder), "--output", str(folder / "taste.zip")]
    return main([*argv, *options])


def parts_of(folder):
    with zipfile.ZipFile(folder / "taste.zip") as archive:
        return yaml.safe_load(archive.read("meta.yaml"))["files"]


def test_a_tokenizer_is_packed_and_opened_without_spoken_lm(experiment, capsys):
    assert pack(experiment) == 0

    assert set(parts_of(experiment)) == {"model_file", "vocoder_model_file"}
    assert "tokenizer without spoken LM" in capsys.readouterr().out
    files = find_files(experiment / "taste.zip", need_slm=False)
    assert files.slm_model_file is None and files.model_file.read_text() == "taste"
    with pytest.raises(ValueError, match="lacks"):
        find_files(experiment / "taste.zip")


def test_a_spoken_lm_is_packed_too(experiment):
    add_slm(experiment)

    assert pack(experiment) == 0

    found = find_files(experiment / "taste.zip")
    assert found.slm_model_file.read_text() == "slm"


def test_a_spoken_lm_without_a_model_is_left_out(experiment, capsys):
    """Its config is there as soon as its training begins."""
    add_slm(experiment)
    (experiment / "slm" / BEST).unlink()

    assert pack(experiment) == 0

    assert set(parts_of(experiment)) == {"model_file", "vocoder_model_file"}
    assert f"no {experiment}/slm/{BEST}; the pack holds" in capsys.readouterr().out


def test_a_spoken_lm_can_be_left_out(experiment, capsys):
    add_slm(experiment)

    assert pack(experiment, "--tokenizer_only") == 0

    assert set(parts_of(experiment)) == {"model_file", "vocoder_model_file"}
    assert "--tokenizer_only; the pack holds" in capsys.readouterr().out


@pytest.mark.parametrize("part", ["taste", "vocoder"])
def test_a_part_whose_training_has_not_ended_is_refused(experiment, capsys, part):
    add_slm(experiment)
    (experiment / part / BEST).unlink()

    assert pack(experiment) == 1

    assert f"exp/{part}/{BEST}" in capsys.readouterr().err
    assert not (experiment / "taste.zip").exists()


def test_the_noted_checkpoint_of_the_tokenizer_is_used(experiment):
    add_slm(experiment)
    assert find_files(experiment).model_file.name == BEST
    (experiment / "taste" / "inference_model").write_text("valid.acc.best.pth\n")

    found = find_files(experiment)
    assert pack(experiment) == 0

    assert found.model_file.read_text() == "accurate"
    assert found.vocoder_model_file.name == found.slm_model_file.name == BEST
    assert find_files(experiment / "taste.zip").model_file.read_text() == "accurate"


def test_the_checkpoint_of_the_tokenizer_can_be_named(experiment):
    add_slm(experiment)

    assert pack(experiment, "--inference_model", "valid.acc.best.pth") == 0

    assert find_files(experiment / "taste.zip").model_file.read_text() == "accurate"
