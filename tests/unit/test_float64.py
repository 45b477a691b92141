"""Decoding makes no float64 on Apple's GPUs (MPS), which have none.

No such machine is needed: fake tensors know their device and have no values.
"""

import re
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from espnet_taste.decoder.flow_encoder import two_sided_table
from espnet_taste.decoder.hift_source import HarmonicSource
from espnet_taste.layers.precision import in_float64
from espnet_taste.layers.relative_attention import _sinusoids
from espnet_taste.layers.residual_vq import ResidualVQ
from espnet_taste.sampling import RowStreams, draw

MPS = torch.device("mps")
PACKAGE = Path(__file__).parents[2] / "espnet_taste"
WIDE = re.compile(r"torch\.(float64|double)\b|(?<!\.cpu\(\))\.double\(\)")
# Where it may stand, and why; scores and trainings on MPS are not promised.
ALLOWED = {
    "layers/precision.py": "in_float64 itself",
    "layers/relative_attention.py": "table made on the CPU",
    "decoder/flow_encoder.py": "table made on the CPU",
    "layers/kmeans.py": "random numbers made on the CPU",
    "sampling.py": "not on MPS",
    "convert/tensors.py": "names of types",
    "weights/convert_torch.py": "weights on the CPU",
}


class NoFloat64OnMps(TorchDispatchMode):
    """Refuse what MPS refuses."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and value.device.type == "mps":
                assert value.dtype != torch.float64, f"{func} made float64 on MPS"
        return result


class Detours(TorchFunctionMode):
    """Avoid the calls at which a torch without MPS stops even fake tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to:
            return moved(*args)
        if func is torch.Tensor.__getitem__:
            return picked(*args)
        return func(*args, **(kwargs or {}))


def moved(tensor, *places):
    """Do what ``to`` does."""
    options = {}
    for place in places:
        if isinstance(place, torch.Tensor):
            options = {"device": place.device, "dtype": place.dtype}
        else:
            kind = "dtype" if isinstance(place, torch.dtype) else "device"
            options[kind] = place
    return torch.ops.aten._to_copy.default(tensor, **options)


def picked(tensor, index):
    """Do what ``tensor[index]`` does, for slices, numbers and new axes."""
    axis = 0
    for part in index:
        if part is Ellipsis:
            axis = tensor.dim()  # nothing but new axes behind it here
        elif part is None:
            tensor = tensor.unsqueeze(axis)
            axis += 1
        elif isinstance(part, int):
            tensor = tensor.select(axis, part)
        else:
            tensor = torch.ops.aten.slice.Tensor(tensor, axis, part.start, part.stop)
            axis += 1
    return tensor


@pytest.fixture
def mps():
    with FakeTensorMode(allow_non_fake_inputs=True), NoFloat64OnMps(), Detours():
        yield
    _sinusoids.cache_clear()


def test_float64_on_mps_is_found(mps):
    with pytest.raises(AssertionError, match="made float64 on MPS"):
        torch.zeros(2, device=MPS).double()


def test_it_is_made_on_the_cpu_instead(mps):
    wide = in_float64(torch.zeros(2, device=MPS))

    assert (wide.dtype, wide.device.type) == (torch.float64, "cpu")


def test_elsewhere_it_is_made_where_the_tensor_is():
    wide = in_float64(torch.zeros(2, device="meta"))

    assert (wide.dtype, wide.device.type) == (torch.float64, "meta")


@pytest.mark.parametrize("table", [_sinusoids, two_sided_table])
def test_tables(mps, table):
    found = table(4, 6, MPS)

    assert (found.dtype, found.device.type) == (torch.float32, "mps")


def test_excitation(mps):
    settings = {"amplitude": 0.1, "noise": 0.003, "voiced_above_hz": 10.0}
    source = HarmonicSource(2, 16000, **settings)
    f0, phase, noise = (
        torch.zeros(size, device=MPS) for size in ((2, 9), (2, 3), (2, 3, 9))
    )

    found = source.sines(f0, phase, noise)

    assert (found.dtype, found.device.type) == (torch.float32, "mps")


def test_draws(mps):
    drawn = draw(torch.zeros(2, 5, device=MPS), RowStreams([0, 1], MPS))

    assert (drawn.dtype, drawn.device.type) == (torch.int64, "mps")


def test_start_of_projections(mps):
    rvq = ResidualVQ(4, 2, 3, 1)

    with torch.no_grad():
        rvq._start_projections(torch.zeros(9, 4, device=MPS))

    assert rvq.project_in.weight.dtype == torch.float32


def test_sources_make_it_nowhere_else():
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if WIDE.search(path.read_text(encoding="utf-8"))
    }

    assert found == set(ALLOWED), "use layers.precision.in_float64, or say why not"
