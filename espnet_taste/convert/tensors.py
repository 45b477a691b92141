"""Tensors in safetensors files: what there is, one at a time in, one at a time out.

A file is written without ever being in memory: its header needs names, dtypes and
shapes alone, and those are known from the headers that were read.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from espnet_taste.convert.errors import DamagedFile, NotFinite, TensorMismatch

Shape = tuple[int, ...]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
_CHUNK = 1 << 20  # elements that are looked at together for NaN


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    path: Path
    name: str
    dtype: str  # as safetensors calls it, e.g. "BF16"
    shape: Shape


def list_file(path: Path) -> dict[str, Stored]:
    """Read the header of a safetensors file.

    Returns:
        Name to what is stored.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFile: If it is truncated or no safetensors file.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: Stored(path, name, view.get_dtype(), tuple(view.get_shape()))
            for name, view in slices.items()
        }


def list_folder(folder: Path) -> dict[str, Stored]:
    """Read the headers of a folder: one file, or shards with their index.

    Raises:
        FileNotFoundError: If the folder holds neither, or lacks a shard.
        DamagedFile: If a file is truncated or the index cannot be read.
        TensorMismatch: If index and shards do not agree.
    """
    if (folder / SINGLE).is_file():
        return list_file(folder / SINGLE)
    index = folder / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    shard_of = _read_index(index)
    stored: dict[str, Stored] = {}
    for shard in sorted(set(shard_of.values())):
        if not (folder / shard).is_file():
            raise FileNotFoundError(f"{index} names {shard}, which is absent; fetch it")
        stored |= list_file(folder / shard)
    for name, shard in shard_of.items():
        if name not in stored or stored[name].path.name != shard:
            raise TensorMismatch(
                f"{index} says that {name} is in {shard}, where it is not; fetch both "
                "again"
            )
    return stored


def _read_index(index: Path) -> dict[str, str]:
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = set(shard_of.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(
            f"{index} is no index of shards ({error}); fetch it again"
        ) from error
    strange = [name for name in files if Path(str(name)).name != name]
    if strange:
        raise DamagedFile(f"{index} names {strange[0]!r}, which is no file beside it")
    return shard_of


def _opened(path: Path) -> safe_open:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise DamagedFile(
            f"{path} is truncated or no safetensors file ({error}); fetch it again"
        ) from error


def read_tensors(stored: Mapping[str, Stored]) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors one by one, file by file; only one file is open at a time.

    Args:
        stored: Any name to what is stored.

    Yields:
        That name and the tensor, on the CPU.

    Raises:
        DamagedFile: If a file is damaged.
    """
    by_file: dict[Path, list[str]] = {}
    for name, entry in stored.items():
        by_file.setdefault(entry.path, []).append(name)
    for path, names in by_file.items():
        with _opened(path) as file:
            for name in names:
                yield name, file.get_tensor(stored[name].name)


def check_finite(name: str, tensor: Tensor, path: Path) -> None:
    """Refuse NaN and infinity.

    Raises:
        NotFinite: If there is one.
    """
    if not tensor.is_floating_point():
        return
    for chunk in tensor.reshape(-1).split(_CHUNK):
        if not bool(torch.isfinite(chunk).all()):
            raise NotFinite(
                f"{name} in {path} holds NaN or infinity; fetch the file again, or use "
                "another checkpoint"
            )


class SafetensorsWriter:
    """Write a safetensors file tensor by tensor, in any order.

    Use it as a context manager.

    Args:
        path: File to write.
        tensors: Name to dtype (as safetensors calls it) and shape.
    """

    def __init__(self, path: Path, tensors: Mapping[str, tuple[str, Shape]]):
        self.path = path
        # Wide elements first, as safetensors itself does: all stay aligned.
        order = sorted(tensors, key=lambda n: (-_element_bytes(tensors[n][0]), n))
        self._places: dict[str, tuple[int, int]] = {}
        entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in order:
            dtype, shape = tensors[name]
            start, end = end, end + num_bytes(dtype, shape)
            self._places[name] = (start, end)
            offsets = [start, end]
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
        self._head = len(header).to_bytes(8, "little") + header
        self._missing = set(order)

    def __enter__(self) -> "SafetensorsWriter":
        """Open the file and write the header."""
        self._file = self.path.open("wb")
        self._file.write(self._head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file; without an error, it must be complete."""
        self._file.close()
        if kind is None and self._missing:
            raise RuntimeError(f"{self.path}: {sorted(self._missing)} never written")

    def write(self, name: str, tensor: Tensor) -> None:
        """Put a tensor in its place.

        Args:
            name: One of the announced names.
            tensor: Of the announced dtype and number of elements.
        """
        start, end = self._places[name]
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        if data.nbytes != end - start:
            raise RuntimeError(f"{name}: {data.nbytes} bytes, not {end - start}")
        self._file.seek(len(self._head) + start)
        self._file.write(data.data)
        self._missing.discard(name)


def open_writers(
    files: Mapping[Path, Mapping[str, tuple[str, Shape]]], stack: ExitStack
) -> dict[Path, SafetensorsWriter]:
    """Open several files to write, on a stack that closes them."""
    return {
        path: stack.enter_context(SafetensorsWriter(path, tensors))
        for path, tensors in files.items()
    }


def num_bytes(dtype: str, shape: Iterable[int]) -> int:
    """Return the size of a tensor in a file."""
    count = 1
    for size in shape:
        count *= size
    return count * _element_bytes(dtype)


def _element_bytes(dtype: str) -> int:
    return DTYPES[dtype].itemsize
