"""Optional packages, asked for where they are used."""

import importlib
import importlib.util
from types import ModuleType

INSTALL = "pip install 'espnet-taste[eval]'"


class MissingPackageError(RuntimeError):
    """A package that is not always there is not installed."""


def is_installed(name: str) -> bool:
    """Tell whether a package could be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def require(name: str) -> ModuleType:
    """Import a package of the ``eval`` extra.

    Raises:
        MissingPackageError: If it is not installed; holds the install command.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # A package that is there but lacks one of its own is another fault.
        if error.name != name:
            raise
        raise MissingPackageError(f"scoring needs {name}: {INSTALL}") from error
