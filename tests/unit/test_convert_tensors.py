"""Files written tensor by tensor are what safetensors itself would read and write."""

import json
import os
import stat
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from espnet_taste.convert.errors import NotFinite
from espnet_taste.convert.folders import new_folder
from espnet_taste.convert.tensors import (
    INDEX,
    SafetensorsWriter,
    check_finite,
    list_file,
    list_folder,
    num_bytes,
    read_tensors,
)

STATE = {
    "odd": torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
    "scalar": torch.tensor(5),
    "wide": torch.arange(6, dtype=torch.float64).view(2, 3).t(),  # not contiguous
    "empty": torch.zeros(0, 4),
    "float": torch.tensor([-0.0, float("inf")]),
}


def describe(path):
    return {name: (s.dtype, s.shape) for name, s in list_file(path).items()}


def test_a_file_written_in_any_order(tmp_path):
    plain = {name: tensor.contiguous() for name, tensor in STATE.items()}
    save_file(plain, tmp_path / "theirs", metadata={"format": "pt"})

    with SafetensorsWriter(tmp_path / "ours", describe(tmp_path / "theirs")) as writer:
        for name in reversed(STATE):
            writer.write(name, STATE[name])

    loaded = load_file(tmp_path / "ours")
    assert set(loaded) == set(STATE)
    for name, tensor in STATE.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert describe(tmp_path / "ours") == describe(tmp_path / "theirs")


def test_every_tensor_is_aligned(tmp_path):
    tensors = {"a": ("BF16", (3,)), "b": ("F32", (2,)), "c": ("F64", (1,))}
    with SafetensorsWriter(tmp_path / "file", tensors) as writer:
        for name, (dtype, shape) in tensors.items():
            kind = {"BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
            writer.write(name, torch.zeros(shape, dtype=kind[dtype]))

    data = (tmp_path / "file").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    for name, (dtype, _) in tensors.items():
        start = header[name]["data_offsets"][0]
        assert start % num_bytes(dtype, ()) == 0


def test_an_incomplete_file_is_our_fault(tmp_path):
    writer = SafetensorsWriter(tmp_path / "file", {"a": ("F32", (2,))})
    with pytest.raises(RuntimeError, match="'a'.* never written"), writer:
        pass
    with pytest.raises(RuntimeError, match="4 bytes, not 8"), writer:
        writer.write("a", torch.zeros(1))


def test_tensors_are_read_file_by_file(tmp_path):
    names = ["a", "b", "c", "d"]
    for number, file in enumerate(("one", "two")):
        part = {
            name: torch.tensor([i]) for i, name in enumerate(names) if i % 2 == number
        }
        save_file(part, tmp_path / file)
    stored = list_file(tmp_path / "one") | list_file(tmp_path / "two")
    alias = {f"my {name}": stored[name] for name in names}

    read = [(name, int(tensor)) for name, tensor in read_tensors(alias)]

    assert read == [("my a", 0), ("my c", 2), ("my b", 1), ("my d", 3)]


def test_a_single_file_goes_before_an_index(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / INDEX).write_text("damaged")

    assert list(list_folder(tmp_path)) == ["a"]


@pytest.mark.parametrize("place", [0, 2**20 - 1, 2**20])
def test_nan_is_found_in_every_chunk(tmp_path, place):
    tensor = torch.zeros(2**20 + 1, dtype=torch.bfloat16)
    check_finite("t", tensor, tmp_path)
    tensor[place] = float("nan")
    with pytest.raises(NotFinite, match="t in .* fetch the file again"):
        check_finite("t", tensor, tmp_path)
    check_finite("integers", torch.tensor([1]), tmp_path)


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o007, 0o660)])
def test_who_may_read_the_folder_may_read_the_weights(tmp_path, umask, mode):
    """safetensors writes files that their writer alone may read."""
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "model") as work:
            save_file({"a": torch.zeros(1)}, work / "model.safetensors")
            (work / "inner").mkdir()
            save_file({"a": torch.zeros(1)}, work / "inner" / "model.safetensors")
    finally:
        os.umask(before)

    for path in (tmp_path / "model").rglob("*.safetensors"):
        assert stat.S_IMODE(path.stat().st_mode) == mode
