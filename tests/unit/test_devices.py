"""Devices by name: those of this machine, and what is said of others."""

import argparse

import pytest
import torch

from espnet_taste.bin import align, transcribe
from espnet_taste.bin.command import run_command
from espnet_taste.pipeline.devices import find_device
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokenizer import TokenizerInference


@pytest.fixture(params=[0, 2])
def gpus(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return request.param


def test_what_is_there_is_found(gpus):
    assert find_device("cpu") == find_device(torch.device("cpu"))
    for number in range(gpus):
        assert find_device(f"cuda:{number}").index == number
    if gpus:
        assert find_device("cuda").type == "cuda"


@pytest.mark.parametrize("name", ["cuda:2", "cuda:9", "mps", "gpu"])
def test_what_is_not_there_is_named(gpus, name):
    there = "cpu, cuda:0, cuda:1" if gpus else r"cpu \(does this torch see the GPU"
    with pytest.raises(ValueError, match=f"device: .*'{name}'.*; there is {there}"):
        find_device(name)


def test_commands_say_it_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    parser = argparse.ArgumentParser()
    parser.add_argument("--device")
    worked = []

    assert run_command(worked.append, parser, "do", ["--device", "cuda"]) == 1
    assert capsys.readouterr().err.startswith("do: device: no 'cuda' on this machine")
    assert worked == []
    for argv in ([], ["--device", "cpu"]):
        assert run_command(worked.append, parser, "do", argv) == 0
    assert len(worked) == 2


@pytest.mark.parametrize("module", [align, transcribe])
def test_so_do_those_that_run_on_their_own(module, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    folders = ["--data_dir", "absent", "--output_dir", str(tmp_path / "out")]

    assert module.main([*folders, "--device", "cuda"]) == 1
    assert "device: no 'cuda' on this machine" in capsys.readouterr().err


def test_models_are_not_loaded_for_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for work in (
        lambda: TasteTokenizer.from_pretrained("exp/absent", device="cuda"),
        lambda: TokenizerInference("absent.pth", device="cuda"),
    ):
        with pytest.raises(ValueError, match="no 'cuda' on this machine"):
            work()
