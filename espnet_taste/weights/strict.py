"""Weights that fit a network completely, or a message that names what does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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
