"""Weighted sum of two streams of equal length: one learned weight each.

Source: TASTE (arXiv:2504.07053), fusion of speech decoder and of spoken LM.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Before the softmax, TASTE first: equal parts, or nearly all text.
INITIAL_WEIGHTS = {"balance": (1.0, 1.0), "zero_audio": (-2.0, 2.0)}


class WeightedFusion(nn.Module):
    """Mix TASTE and text by softmax weights, TASTE first.

    Args:
        init: Weights to start from: ``"balance"`` or ``"zero_audio"``.
        normalize: Pass both streams through a layer norm without parameters first.
            Of the reference, only the stage without quantizer does.

    Raises:
        ValueError: If ``init`` is unknown.
    """

    def __init__(
        self,
        init: Literal["balance", "zero_audio"] = "balance",
        *,
        normalize: bool = False,
    ):
        super().__init__()
        if init not in INITIAL_WEIGHTS:
            raise ValueError(
                f"fusion init must be one of {sorted(INITIAL_WEIGHTS)}, got {init!r}"
            )
        self.normalize = normalize
        self.weights = nn.Parameter(torch.tensor(INITIAL_WEIGHTS[init]))

    def forward(self, taste: Tensor, text: Tensor) -> Tensor:
        """Mix two streams.

        Args:
            taste: (..., D), float.
            text: (..., D), float.

        Returns:
            ``softmax(weights)[0] * taste + softmax(weights)[1] * text``, (..., D).

        Raises:
            ValueError: If the shapes differ.
        """
        if taste.shape != text.shape:
            raise ValueError(
                "fusion needs streams of one shape, got TASTE "
                f"{tuple(taste.shape)} and text {tuple(text.shape)}"
            )
        if self.normalize:
            taste = F.layer_norm(taste, taste.shape[-1:])
            text = F.layer_norm(text, text.shape[-1:])
        share = self.weights.softmax(0)
        return share[0] * taste + share[1] * text
