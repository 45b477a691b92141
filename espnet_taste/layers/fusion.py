"""Join two streams of equal length: TASTE and text.

Three ways with one call, ``fusion(taste, text)``. The released models have the
weighted sum; gate and addition are the alternatives of the paper's spoken LM.

Symbols: D width.

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
        _require_one_shape(taste, text)
        if self.normalize:
            taste = F.layer_norm(taste, taste.shape[-1:])
            text = F.layer_norm(text, text.shape[-1:])
        share = self.weights.softmax(0)
        return share[0] * taste + share[1] * text


class GatedFusion(nn.Module):
    """Weigh TASTE and text anew at every position, by gates that see both.

    Training starts from nearly the text alone, as ``zero_audio`` does: the gates'
    weights are zero, their biases the weights of that start.

    Args:
        width: D.
    """

    def __init__(self, width: int):
        super().__init__()
        self.gates = nn.Linear(2 * width, 2)
        nn.init.zeros_(self.gates.weight)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor(INITIAL_WEIGHTS["zero_audio"]) * 2)

    def forward(self, taste: Tensor, text: Tensor) -> Tensor:
        """Mix two streams.

        Args:
            taste: (..., D), float.
            text: (..., D), float.

        Returns:
            ``g[0] * taste + g[1] * text`` with ``g = sigmoid(gates([taste, text]))``,
            (..., D).

        Raises:
            ValueError: If the shapes differ.
        """
        _require_one_shape(taste, text)
        gates = self.gates(torch.cat([taste, text], dim=-1)).sigmoid()
        return gates[..., :1] * taste + gates[..., 1:] * text


class AdditionFusion(nn.Module):
    """Add TASTE to the text, by one learned factor that starts at zero.

    So the LLM first reads what it knows, whatever the projection of TASTE is.
    """

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, taste: Tensor, text: Tensor) -> Tensor:
        """Add two streams.

        Args:
            taste: (..., D), float.
            text: (..., D), float.

        Returns:
            ``text + scale * taste``, (..., D).

        Raises:
            ValueError: If the shapes differ.
        """
        _require_one_shape(taste, text)
        return text + self.scale * taste


def build_fusion(name: str, width: int) -> nn.Module:
    """Build the fusion of a spoken LM.

    Args:
        name: ``"weighted_sum"`` (released), ``"gated"`` or ``"addition"``.
        width: D.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == "weighted_sum":
        return WeightedFusion("zero_audio")
    if name == "gated":
        return GatedFusion(width)
    if name == "addition":
        return AdditionFusion()
    raise ValueError(
        f"fusion must be 'weighted_sum', 'gated' or 'addition', got '{name}'"
    )


def _require_one_shape(taste: Tensor, text: Tensor) -> None:
    if taste.shape != text.shape:
        raise ValueError(
            "fusion needs streams of one shape, got TASTE "
            f"{tuple(taste.shape)} and text {tuple(text.shape)}"
        )
