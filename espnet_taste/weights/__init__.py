"""Pretrained weights by name, from wherever they can be had.

``resolve("openai/whisper-tiny.en")`` returns a folder; ``fingerprint`` and
``describe`` say which weights lie in it. Attributes load when first used, so that
importing this room costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espnet_taste.weights.digests import describe, fingerprint
    from espnet_taste.weights.resolver import WeightsNotFound, other_source, resolve

__all__ = ["WeightsNotFound", "describe", "fingerprint", "other_source", "resolve"]

_HOMES = {
    "WeightsNotFound": "espnet_taste.weights.resolver",
    "describe": "espnet_taste.weights.digests",
    "fingerprint": "espnet_taste.weights.digests",
    "other_source": "espnet_taste.weights.resolver",
    "resolve": "espnet_taste.weights.resolver",
}


def __getattr__(name: str) -> Any:
    """Import an exported name from its module at first use."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
