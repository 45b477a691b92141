"""What can be wrong with a checkpoint; every message says what to do about it."""


class CheckpointError(ValueError):
    """Base of everything that is wrong with a checkpoint."""


class DamagedFile(CheckpointError):
    """A file is truncated, or not what its name says."""


class UnsafePickle(CheckpointError):
    """A pickle would run code when it is loaded."""


class WrongDigest(CheckpointError):
    """A file has not the sha256 that was recorded or given for it."""


class UnknownArchitecture(CheckpointError):
    """A config describes a model that we do not have."""


class TensorMismatch(CheckpointError):
    """Tensors are missing, unknown, or of another shape or kind."""


class NotFinite(CheckpointError):
    """A tensor holds NaN or infinity."""


class CopiesDiffer(CheckpointError):
    """A tensor that lies in two files has two values."""


# A table of every fault would be as long as the checkpoint.
_SHOWN = 5


def some(names: list[str]) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
