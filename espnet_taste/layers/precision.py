"""Which precision a device computes in.

A CPU with AMX multiplies bfloat16 matrices five times as fast as float32's; one without
instructions for it, eight times as slowly (measured: AVX2, 7 against 56 GFLOP/s on one
core). So what a YAML file asks for is what is used where the device can.
"""

import functools
import logging
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

AMP_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Any of them multiplies bfloat16: x86 (AMX, AVX-512, AVX10.2), then ARM.
CPU_CAPABILITIES = ("amx_bf16", "avx512_bf16", "avx10_2", "bf16")


def amp_dtype_of(name: str | None) -> torch.dtype | None:
    """Return the type of an option ``amp_dtype`` of a training; None for no autocast.

    Raises:
        ValueError: If it is another than bfloat16. Gradients in float16 vanish without
            a scaler.
    """
    if name not in (None, "bfloat16"):
        hint = ", whose gradients vanish" if name == "float16" else ""
        raise ValueError(f"amp_dtype must be bfloat16 or null, got {name!r}{hint}")
    return AMP_DTYPES.get(name)


@functools.cache
def has_bfloat16(device_type: str) -> bool:
    """Return whether a kind of device has instructions for bfloat16."""
    if device_type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in CPU_CAPABILITIES)
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def usable_dtype(dtype: torch.dtype, device: torch.device | str) -> torch.dtype:
    """Return the type to compute in where ``dtype`` is asked for.

    Args:
        dtype: Floating type.
        device: Where it is computed.

    Returns:
        float32 for bfloat16 on a device without instructions for it, which holds every
        value of bfloat16; ``dtype`` in all other cases.
    """
    kind = torch.device(device).type
    if dtype is not torch.bfloat16 or has_bfloat16(kind):
        return dtype
    _tell_of_float32(kind)
    return torch.float32


def autocast(
    device: torch.device | str, dtype: torch.dtype | None
) -> AbstractContextManager:
    """Return a context that computes in ``dtype`` where the device can.

    Args:
        device: Where it is computed.
        dtype: bfloat16 or float16; None for the type of the operands.
    """
    if dtype is None or usable_dtype(dtype, device) is torch.float32:
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype)


def is_float16(device: torch.device) -> bool:
    """Return whether products on a device are just now computed in float16."""
    kind = device.type
    return torch.is_autocast_enabled(kind) and (
        torch.get_autocast_dtype(kind) is torch.float16
    )


def in_float64(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, on the CPU if its device (MPS) has none."""
    if tensor.device.type == "mps":
        tensor = tensor.cpu()
    return tensor.double()


@functools.cache
def _tell_of_float32(device_type: str) -> None:
    logger.info(
        f"this {device_type} has no instructions for bfloat16: computing in float32"
    )
