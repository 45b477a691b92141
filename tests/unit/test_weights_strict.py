"""Files of weights: tensors or a message, never code, never a silent NaN."""

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from espnet_taste.weights.strict import read_weights, require_fit

FIT = {"a": torch.zeros(2), "b": torch.zeros(3)}
STATE = {"a": torch.arange(3.0), "b.c": torch.ones(2, 2), "count": torch.tensor(5)}


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write(folder, suffix, state=STATE):
    path = folder / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_tensors_come_back(tmp_path, suffix):
    state = read_weights(write(tmp_path, suffix))

    assert state.keys() == STATE.keys()
    assert all(state[name].equal(value) for name, value in STATE.items())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_named(tmp_path, suffix, size):
    path = write(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(ValueError, match=f"weights{suffix}: .*damaged"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(tmp_path, suffix, value):
    state = STATE | {"b.c": torch.tensor([[1.0, value]])}

    with pytest.raises(ValueError, match="1 tensors .* not finite, e.g. ..b.c"):
        read_weights(write(tmp_path, suffix, state))


@pytest.mark.parametrize(
    "save", [torch.save, lambda s, p: p.write_bytes(pickle.dumps(s))]
)
def test_code_is_refused_and_not_run(tmp_path, save):
    path, touched = tmp_path / "weights.pt", tmp_path / "touched"
    save({"a": Code(touched)}, path)

    with pytest.raises(ValueError, match="weights.pt: refused"):
        read_weights(path)
    assert not touched.exists()


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], torch.ones(1)])
def test_other_content_is_refused(tmp_path, content):
    with pytest.raises(ValueError, match="holds more than named tensors"):
        read_weights(write(tmp_path, ".pth", content))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*weights.pt"):
        read_weights(tmp_path / "weights.pt")


def test_equal_names_and_shapes_fit():
    require_fit(FIT, {"b": torch.ones(3), "a": torch.ones(2)}, "x", "net")


@pytest.mark.parametrize(
    ("state", "count"),
    [
        ({"a": torch.zeros(2)}, r"1 tensors .*\['b'\]"),
        ({**FIT, "c": torch.zeros(1)}, r"1 tensors .*\['c'\]"),
        ({"a": torch.zeros(2), "b": torch.zeros(1, 3)}, r"1 tensors .*\['b'\]"),
        ({}, r"2 tensors .*\['a', 'b'\]"),
    ],
)
def test_what_does_not_fit_is_named(state, count):
    with pytest.raises(ValueError, match=f"file: not the weights of this net; {count}"):
        require_fit(FIT, state, "file", "net")
