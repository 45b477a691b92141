"""A progress bar on stderr that does not flood log files."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(keys: Iterable[str] | None, name: str, total: int | None = None) -> tqdm:
    """Show progress over utterances, every second on a terminal, else every 30.

    Args:
        keys: What is gone through; None if ``update`` will be called instead.
        name: Shown in front of the bar.
        total: Number of utterances, where ``keys`` does not tell.

    Returns:
        The bar; it goes through ``keys``.
    """
    interval = 1.0 if sys.stderr.isatty() else 30.0
    return tqdm(
        keys,
        desc=name,
        total=total,
        unit="utt",
        mininterval=interval,
        maxinterval=interval,
    )
