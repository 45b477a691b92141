"""Experiment folders and packs: with and without spoken LM, and which checkpoint."""

import zipfile

import pytest
import torch
import yaml

from espnet_taste.bin.pack import main
from espnet_taste.pipeline.packed import find_files

BEST, ACCURATE = "valid.loss.best.pth", "valid.acc.best.pth"
TOKENIZER, SPOKEN_LM = "quantizer.embed", "slm.codebooks.embed"


def write_model(path, value, name=TOKENIZER):
    torch.save({"model": {name: torch.full((2,), value), "other": torch.ones(1)}}, path)


def codes_of(path, name=TOKENIZER):
    return float(torch.load(path)["model"][name][0])


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """An experiment folder with both checkpoints of its tokenizer, no spoken LM."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp"
    for part in ("taste", "vocoder", "units"):
        (folder / part).mkdir(parents=True)
    for part in ("taste", "vocoder"):
        (folder / part / "config.yaml").write_text("seed: 1\n")
        write_model(folder / part / BEST, 1.0)
    write_model(folder / "taste" / ACCURATE, 2.0)
    for name in ("config.json", "units.safetensors"):
        (folder / "units" / name).write_text("{}")
    return folder


def add_slm(folder, codes=1.0):
    """Add a spoken LM of the tokenizer with these codes."""
    (folder / "slm").mkdir()
    (folder / "slm" / "config.yaml").write_text("seed: 1\n")
    write_model(folder / "slm" / BEST, codes, SPOKEN_LM)


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
    assert files.slm_model_file is None and codes_of(files.model_file) == 1
    with pytest.raises(ValueError, match="lacks"):
        find_files(experiment / "taste.zip")


def test_a_spoken_lm_is_packed_too(experiment):
    add_slm(experiment)

    assert pack(experiment) == 0

    found = find_files(experiment / "taste.zip")
    assert codes_of(found.slm_model_file, SPOKEN_LM) == 1


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
    add_slm(experiment, codes=2.0)
    assert find_files(experiment).model_file.name == BEST
    (experiment / "taste" / "inference_model").write_text(f"{ACCURATE}\n")

    found = find_files(experiment)
    assert pack(experiment) == 0

    assert codes_of(found.model_file) == 2
    assert found.vocoder_model_file.name == found.slm_model_file.name == BEST
    assert codes_of(find_files(experiment / "taste.zip").model_file) == 2


def test_the_checkpoint_of_the_tokenizer_can_be_named(experiment):
    add_slm(experiment, codes=2.0)

    assert pack(experiment, "--inference_model", ACCURATE) == 0

    assert codes_of(find_files(experiment / "taste.zip").model_file) == 2


def test_a_spoken_lm_of_other_codes_is_not_packed(experiment, capsys):
    """Its likelihoods of these codes would mean nothing; nothing else would tell."""
    add_slm(experiment)

    assert pack(experiment, "--inference_model", ACCURATE) == 1

    assert "codes of another tokenizer than" in (error := capsys.readouterr().err)
    assert "differs in embed" in error and not (experiment / "taste.zip").exists()
    assert pack(experiment, "--inference_model", ACCURATE, "--tokenizer_only") == 0
