"""Devices by name, checked before a model is loaded."""

import torch


def find_device(name: str | torch.device) -> torch.device:
    """Return a device of this machine.

    Args:
        name: As torch has them: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        ValueError: If there is no such device here; it says which there are.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device: '{name}' is no device; {_there_are()}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: no '{name}' on this machine; {_there_are()}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device: no '{name}' on this machine; {_there_are()}")
    return device


def _there_are() -> str:
    names = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        names.append("mps")
    hint = "" if len(names) > 1 else " (does this torch see the GPU? nvidia-smi)"
    return f"there is {', '.join(names)}{hint}"
