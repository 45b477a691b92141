"""Weights that fit a network completely, or a message that names what does not."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(path: Path) -> "dict[str, Tensor]":
    """Read a file of weights as tensors and never as code.

    Args:
        path: A ``.safetensors`` file; anything else is taken for a PyTorch checkpoint.

    Returns:
        Name to tensor, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, holds more than named tensors, or a number in it
            is not finite.
    """
    from torch import Tensor

    from espnet_taste.weights.convert_torch import load_pickle

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    is_safe = path.suffix == ".safetensors"
    state = _read_safetensors(path) if is_safe else load_pickle(path)
    named = isinstance(state, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in state.items()
    )
    if not named:
        raise ValueError(f"{path}: holds more than named tensors")
    bad = [
        name
        for name, value in state.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]
    if bad:
        raise ValueError(
            f"{path}: {len(bad)} tensors have values that are not finite, e.g. "
            f"{bad[:3]}; fetch or train it again"
        )
    return state


def _read_safetensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); fetch it again") from error


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Name the folder whose weights a library finds damaged.

    Raises:
        ValueError: In place of safetensors' own error, which is none.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"{folder}: damaged weights ({error}); fetch or copy them again"
        ) from error


def require_fit(
    expected: Mapping[str, "Tensor"],
    state: Mapping[str, "Tensor"],
    source: Path | str,
    what: str,
) -> None:
    """Refuse tensors that are not just those of a network.

    Args:
        expected: State dict of the network, any device, the meta device too.
        state: Tensors that were read.
        source: Where they were read, for the message.
        what: What they should be the weights of, for the message.

    Raises:
        ValueError: If a tensor is missing, extra or of another shape.
    """
    wrong = sorted(
        name
        for name in expected.keys() | state.keys()
        if name not in expected
        or name not in state
        or expected[name].shape != state[name].shape
    )
    if wrong:
        raise ValueError(
            f"{source}: not the weights of this {what}; {len(wrong)} tensors are "
            f"missing, extra or of another shape, e.g. {wrong[:3]}"
        )
