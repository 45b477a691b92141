"""bfloat16 where the device has instructions for it, float32 elsewhere."""

import logging

import pytest
import torch
from torch import nn

from espnet_taste.layers import precision
from espnet_taste.layers.precision import amp_dtype_of, autocast, usable_dtype


@pytest.fixture
def cpu_with(monkeypatch):
    """Return a function that gives the CPU these capabilities alone."""

    def pretend(*names):
        present = dict.fromkeys(names, True)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: present)
        for cached in (precision.has_bfloat16, precision._tell_of_float32):
            cached.cache_clear()

    yield pretend
    monkeypatch.undo()
    for cached in (precision.has_bfloat16, precision._tell_of_float32):
        cached.cache_clear()


def product(dtype):
    with autocast("cpu", dtype):
        return nn.Linear(2, 2)(torch.ones(1, 2)).dtype


@pytest.mark.parametrize("name", ["amx_bf16", "avx512_bf16", "bf16"])
def test_a_cpu_that_multiplies_bfloat16_does(cpu_with, name):
    cpu_with("avx2", name)

    assert usable_dtype(torch.bfloat16, "cpu") is torch.bfloat16
    assert product(torch.bfloat16) is torch.bfloat16


def test_another_computes_in_float32_and_says_so_once(cpu_with, caplog):
    cpu_with("avx2", "avx512_f")

    with caplog.at_level(logging.INFO):
        assert usable_dtype(torch.bfloat16, torch.device("cpu")) is torch.float32
        assert product(torch.bfloat16) is torch.float32

    assert caplog.text.count("cpu has no instructions for bfloat16") == 1


def test_other_types_are_used_as_asked(cpu_with):
    """The released model was trained in float16, whatever that costs on a CPU."""
    cpu_with()

    assert product(torch.float16) is torch.float16
    assert product(None) is torch.float32
    assert usable_dtype(torch.float64, "cpu") is torch.float64


def test_other_devices_are_asked_themselves(monkeypatch):
    for answer in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: answer)
        assert precision.has_bfloat16.__wrapped__("cuda") is answer
    assert precision.has_bfloat16.__wrapped__("mps") is True


def test_names():
    assert amp_dtype_of(None) is None
    assert amp_dtype_of("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match="must be bfloat16 or null, got 'bf16'$"):
        amp_dtype_of("bf16")
    with pytest.raises(ValueError, match="got 'float16', whose gradients vanish"):
        amp_dtype_of("float16")
