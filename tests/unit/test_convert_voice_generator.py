"""Flow and HiFT: which files are taken, which refused; no code of a pickle is run."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet_taste.convert.checkpoint import Options, convert
from espnet_taste.convert.errors import (
    CheckpointError,
    DamagedFile,
    NotFinite,
    TensorMismatch,
    UnsafePickle,
)
from espnet_taste.convert.voice_generator import (
    expected_shapes,
    load_tensors_only,
    read_voice_generator,
)

FLOW = {"a.weight": torch.randn(2, 3), "b": torch.randn(2)}
HIFT = {"c.alpha": torch.randn(4)}
STATE = {
    **{f"flow.{name}": tensor for name, tensor in FLOW.items()},
    **{f"hift.{name}": tensor for name, tensor in HIFT.items()},
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in STATE.items()}


@pytest.fixture
def parts(tmp_path):
    torch.save(FLOW, tmp_path / "flow.pt")
    torch.save(HIFT, tmp_path / "hift.pt")
    return [tmp_path / "flow.pt", tmp_path / "hift.pt"]


def assert_is_state(found):
    assert set(found) == set(STATE)
    assert all(torch.equal(found[name], tensor) for name, tensor in STATE.items())


def test_every_kind_of_file(parts, tmp_path):
    torch.save(STATE, tmp_path / "voice_generator.pth")
    save_file(STATE, tmp_path / "model.safetensors")

    assert_is_state(read_voice_generator(parts, SHAPES))
    for name in ("voice_generator.pth", "model.safetensors"):
        assert_is_state(read_voice_generator([tmp_path / name], SHAPES))


def test_there_and_back(parts, tmp_path):
    ours, back = tmp_path / "ours", tmp_path / "back"
    options = Options(voice_generator=parts, voice_shapes=SHAPES)
    report = convert(None, ours, to="espnet_taste", options=options)
    file = ours / "vocoder" / "model.safetensors"
    assert_is_state(load_file(file))
    assert report.consumed == {name: f"vocoder/{name}" for name in STATE}

    options = Options(voice_generator=[file], voice_shapes=SHAPES)
    convert(None, back, to="official", options=options)
    assert_is_state(torch.load(back / "cosyvoice" / "voice_generator.pth"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flow.b": None}, "missing: flow.b"),
        ({"flow.x": torch.zeros(1)}, "unknown: flow.x"),
        ({"flow.b": torch.zeros(3)}, r"flow.b \(3,\) instead of \(2,\)"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, words):
    path = tmp_path / "voice_generator.pth"
    state = {n: t for n, t in {**STATE, **change}.items() if t is not None}
    torch.save(state, path)

    with pytest.raises(TensorMismatch, match=f"{words}. Give voice_generator.pth"):
        read_voice_generator([path], SHAPES)


def test_half_a_voice_generator(parts):
    with pytest.raises(TensorMismatch, match="missing: hift.c.alpha"):
        read_voice_generator(parts[:1], SHAPES)


def test_nan(tmp_path):
    torch.save({**FLOW, "b": torch.tensor([0.0, float("nan")])}, tmp_path / "flow.pt")
    with pytest.raises(NotFinite, match="flow.b in .*flow.pt"):
        read_voice_generator([tmp_path / "flow.pt"], SHAPES)


def test_a_file_under_another_name(parts, tmp_path):
    parts[0].rename(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="must be called flow.pt or hift.pt"):
        read_voice_generator([tmp_path / "other.pt"], SHAPES)


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(
    "save", [torch.save, lambda x, f: pickle.dump(x, f.open("wb"))]
)
def test_code_in_a_pickle_is_not_run(tmp_path, save):
    trace = tmp_path / "attacked"
    save({"a": Attack(trace)}, tmp_path / "flow.pt")

    with pytest.raises(UnsafePickle, match="loading it could run code, so it was not"):
        load_tensors_only(tmp_path / "flow.pt")
    assert not trace.exists()


def test_damaged_files(parts, tmp_path):
    data = parts[0].read_bytes()
    for broken in (b"", b"hello", data[: len(data) // 2], data[:-1]):
        parts[0].write_bytes(broken)
        with pytest.raises(DamagedFile, match="flow.pt is truncated .* fetch it again"):
            load_tensors_only(parts[0])
    torch.save([torch.zeros(1)], parts[0])
    with pytest.raises(DamagedFile, match="holds no dictionary of tensors"):
        load_tensors_only(parts[0])
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        load_tensors_only(tmp_path / "absent.pt")


def test_the_released_list():
    shapes = expected_shapes()

    assert len(shapes) == 1412
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 125_335_343
    assert not any("{" in name for name in shapes)
