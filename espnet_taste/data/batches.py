"""Batches bounded by what they cost, not by how many items they have."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def in_batches_by_cost(
    items: Iterable[Item], cost: Callable[[Item], float], limit: float
) -> Iterator[list[Item]]:
    """Yield items in lists, in order, as they come.

    A batch costs as much as its dearest item times its number of items, because rows
    are padded to the longest. The same items in the same order give the same batches,
    wherever a run was broken off between two of them.

    Args:
        items: They are taken one at a time.
        cost: Returns what an item costs alone, for instance its seconds.
        limit: What a batch may cost; a dearer item is a batch of its own.

    Raises:
        ValueError: If ``limit`` is not above 0.
    """
    if not limit > 0:
        raise ValueError(f"a batch must be allowed to cost something, got {limit:g}")
    batch: list[Item] = []
    dearest = 0.0
    for item in items:
        price = cost(item)
        if batch and max(dearest, price) * (len(batch) + 1) > limit:
            yield batch
            batch, dearest = [], 0.0
        batch.append(item)
        dearest = max(dearest, price)
    if batch:
        yield batch
