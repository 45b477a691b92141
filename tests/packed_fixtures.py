"""Golden fixtures in little space: every file on its own, by xz.

Random weights hardly compress, but the exponents of floats do once they stand
together: tensors are stored by byte planes, first the lowest byte of all elements of
a size, then the next. A packed tensor file is a line of JSON, which lists name, dtype
and shape of every tensor, and the planes, smallest elements first.
"""

import json
import lzma
from itertools import groupby
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SUFFIX = ".xz"
TENSORS = ".safetensors"


def pack_tensors(tensors: dict[str, Tensor]) -> bytes:
    """Return the packed form of tensors, before compression."""
    names = sorted(tensors, key=lambda name: (tensors[name].element_size(), name))
    header = [
        [name, str(tensors[name].dtype).removeprefix("torch."), [*tensors[name].shape]]
        for name in names
    ]
    parts = [json.dumps(header).encode() + b"\n"]
    for _, group in groupby(names, key=lambda name: tensors[name].element_size()):
        elements = torch.cat([bytes_of(tensors[name]) for name in group])
        parts.append(elements.T.contiguous().numpy().tobytes())
    return b"".join(parts)


def unpack_tensors(data: bytes) -> dict[str, Tensor]:
    """Return the tensors of ``pack_tensors``."""
    line, _, planes = data.partition(b"\n")
    entries = [
        (name, getattr(torch, dtype), shape) for name, dtype, shape in json.loads(line)
    ]
    tensors, start = {}, 0
    for size, group in groupby(entries, key=lambda entry: entry[1].itemsize):
        group = list(group)
        counts = [torch.Size(shape).numel() for _, _, shape in group]
        length = size * sum(counts)
        flat = torch.frombuffer(
            bytearray(planes[start : start + length]), dtype=torch.uint8
        )
        start += length
        elements = flat.view(size, -1).T.contiguous()
        for (name, dtype, shape), part in zip(group, elements.split(counts)):
            tensors[name] = part.contiguous().view(dtype).reshape(shape).clone()
    return tensors


def bytes_of(tensor: Tensor) -> Tensor:
    """(...) -> (elements, bytes of an element), uint8."""
    return tensor.contiguous().reshape(-1, 1).view(torch.uint8)


def compress(data: bytes) -> bytes:
    """Compress as far as xz can."""
    # Planes are no text: no context of earlier bytes (lc) helps.
    settings = {"preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}
    filters = [{"id": lzma.FILTER_LZMA2, **settings}]
    return lzma.compress(data, filters=filters)


def is_packed(folder: Path) -> bool:
    """Tell whether a folder holds packed fixtures."""
    return any(folder.glob(f"*{SUFFIX}"))


def pack(source: Path, target: Path) -> None:
    """Pack one file of fixtures.

    Args:
        source: File of the fixtures.
        target: Packed file, its name that of the source and ``.xz``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == TENSORS:
        data = pack_tensors(load_file(source))
    else:
        data = source.read_bytes()
    target.write_bytes(compress(data))


def unpack(source: Path, target: Path) -> None:
    """Unpack a folder of packed fixtures, folders within it too.

    Args:
        source: The packed folder.
        target: Folder to write the ordinary files to.
    """
    for path in sorted(source.rglob(f"*{SUFFIX}")):
        place = target / path.relative_to(source).with_suffix("")
        place.parent.mkdir(parents=True, exist_ok=True)
        data = lzma.decompress(path.read_bytes())
        if place.suffix == TENSORS:
            save_file(unpack_tensors(data), place, metadata={"format": "pt"})
        else:
            place.write_bytes(data)
