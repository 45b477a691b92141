"""Devices by name: those of this machine, and what is said of others."""

import pytest
import torch

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


def test_models_are_not_loaded_for_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for work in (
        lambda: TasteTokenizer.from_pretrained("exp/absent", device="cuda"),
        lambda: TokenizerInference("absent.pth", device="cuda"),
    ):
        with pytest.raises(ValueError, match="no 'cuda' on this machine"):
            work()
