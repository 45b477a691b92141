"""Which of PyTorch's attention kernels a training on the CPU should use.

The default one has a slow gradient there: in bfloat16 its backward pass takes four to
five times as long as the plain products for the few tokens that a row of text has, and
no less for the frames that they listen to.

Source: measured; ``benchmarks/bench_guided_step.py``.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def attention_kernel(device: torch.device) -> AbstractContextManager:
    """Return the context in which ``scaled_dot_product_attention`` is to be called.

    Args:
        device: Where it runs. Only on the CPU and only where a gradient is wanted is
            anything but PyTorch's own choice made.
    """
    if torch.is_grad_enabled() and device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()
