"""TASTE (text-aligned speech tokenization and embedding) as an ESPnet plugin.

Importing this package registers its classes with ESPnet and loads nothing
heavy: the registrations wait until ESPnet's task modules are imported.

Source: arXiv:2504.07053.
"""

from espnet_taste.registry import register, register_builtin_classes

__version__ = "0.1.0"
__all__ = ["__version__", "register"]

register_builtin_classes()
