"""Losses of the spoken LM: next text token, and the TASTE of each word.

Text: cross-entropy against the transcript, mixed with the Kullback-Leibler
divergence from the unadapted LLM, which keeps the adapted one a good writer. The
LLM's vocabulary is so large (128 256 for Llama 3) that logits of a whole batch
would dwarf everything else in memory, so they exist for one chunk of positions at
a time, and so does their gradient.

Symbols: N positions, H LLM width, V vocabulary, W words, Q codebooks, K codebook
size, d codebook width.

Source: TASTE (arXiv:2504.07053), spoken LM training; formulas of the reference.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet_taste.layers.latent_head import Latent
from espnet_taste.types import IGNORE

MAX_LOGITS = 2**24
"""Logits held at a time: 64 MiB in float32, 131 positions of Llama 3."""


@dataclass(frozen=True)
class LossWeights:
    """Mixture of the loss terms; the defaults are the released ones.

    Raises:
        ValueError: If a weight is negative or a share not in 0..1.
    """

    text: float = 0.5  # weight of the text loss in the total
    taste: float = 0.5  # weight of the TASTE loss in the total
    text_kl: float = 0.9  # share of the divergence in the text loss; 0 = not computed
    latent_kl: float = 0.5  # share of the latent's divergence in its loss

    def __post_init__(self) -> None:
        for name in ("text", "taste"):
            if getattr(self, name) < 0:
                raise ValueError(f"weight '{name}' must be >= 0")
        for name in ("text_kl", "latent_kl"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"share '{name}' must be in 0..1")


@dataclass(frozen=True)
class TextLosses:
    """Text terms of a batch."""

    mixed: Tensor  # (), sum of (1 - share) * ce + share * kl; has the gradient
    ce: Tensor  # (...), cross-entropy in nats; 0 without a label
    kl: Tensor  # (...), divergence from the reference in nats; 0 without a label
    hits: Tensor  # (...), bool; the label is the model's best token
    count: Tensor  # (), number of labels


def text_losses(
    hidden: Tensor,
    labels: Tensor,
    head: nn.Module,
    *,
    reference: Tensor | None = None,
    kl_share: float = 0.0,
) -> TextLosses:
    """Compare the next-token distribution with the labels and the reference.

    Args:
        hidden: Output of the adapted LLM, (..., H).
        labels: Next tokens, (...), int64, IGNORE where nothing is predicted.
        head: The LLM's frozen output layer, H to V. It gets no gradient.
        reference: Output of the unadapted LLM at the same positions, (..., H);
            None leaves the divergence out, and the mixed loss is the cross-entropy.
        kl_share: Share of the divergence in the mixed loss, 0..1.

    Returns:
        The text terms of every position.
    """
    width = hidden.size(-1)
    if reference is not None:
        reference = reference.reshape(-1, width)
    mixed, ce, kl, hits = _ChunkedTextLoss.apply(
        hidden.reshape(-1, width), reference, labels.reshape(-1), head, kl_share
    )
    return TextLosses(
        mixed=mixed,
        ce=ce.view(labels.shape),
        kl=kl.view(labels.shape),
        hits=hits.view(labels.shape),
        count=(labels != IGNORE).sum(),
    )


class _ChunkedTextLoss(torch.autograd.Function):
    """Text terms chunk by chunk, with the gradient found on the way.

    The loss is the end of the graph, so its gradient w.r.t. ``hidden`` is known up
    to a factor when the loss is: no chunk's logits have to be kept, or computed
    again, for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        reference: Tensor | None,
        labels: Tensor,
        head: nn.Module,
        kl_share: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go through all chunks; inputs are flat, (N, H) and (N,)."""
        needs_grad = ctx.needs_input_grad[0]
        gradient = torch.zeros_like(hidden) if needs_grad else None
        ce, kl = hidden.new_zeros(2, hidden.size(0), dtype=torch.float32)
        hits = torch.zeros_like(labels, dtype=torch.bool)
        step = max(1, MAX_LOGITS // head.weight.size(0))
        for start in range(0, hidden.size(0), step):
            part = slice(start, start + step)
            base = None if reference is None else reference[part]
            with torch.set_grad_enabled(needs_grad):
                states = hidden[part].detach().requires_grad_(needs_grad)
                terms = _text_terms(states, base, labels[part], head)
                mixed = _mix(*terms[:2], kl_share, reference is not None).sum()
            if gradient is not None:
                (gradient[part],) = torch.autograd.grad(mixed, states)
            ce[part], kl[part], hits[part] = (term.detach() for term in terms)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(ce, kl, hits)
        return _mix(ce, kl, kl_share, reference is not None).sum(), ce, kl, hits

    @staticmethod
    def backward(ctx: Any, grad_mixed: Tensor, *_: Tensor) -> tuple[Any, ...]:
        """Scale the stored gradient; it is of a sum, so half precision holds it."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_mixed.to(gradient.dtype), None, None, None, None


def _mix(ce: Tensor, kl: Tensor, kl_share: float, has_reference: bool) -> Tensor:
    return (1 - kl_share) * ce + kl_share * kl if has_reference else ce


def _text_terms(
    hidden: Tensor, reference: Tensor | None, labels: Tensor, head: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Return cross-entropy, divergence and hits of one chunk, each (N,)."""
    log_probs = head(hidden).float().log_softmax(-1)
    ce = F.nll_loss(log_probs, labels, ignore_index=IGNORE, reduction="none")
    hits = log_probs.argmax(-1) == labels
    if reference is None:
        return ce, torch.zeros_like(ce), hits
    with torch.no_grad():
        target = head(reference).float().log_softmax(-1)
    kl = F.kl_div(log_probs, target, log_target=True, reduction="none").sum(-1)
    return ce, kl.masked_fill(labels == IGNORE, 0.0), hits


def latent_losses(latent: Latent, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compare predicted latents with the summed codes of the words.

    Args:
        latent: Prediction, value and mean (..., d).
        target: Summed codes, (..., d).

    Returns:
        Squared error of the value, and the divergence of the prediction from a unit
        Gaussian around the target, both (...), averaged over the dimensions.
    """
    squared = (latent.value - target).square()
    divergence = 0.5 * (
        latent.logvar.exp() + (latent.mu - target).square() - 1 - latent.logvar
    )
    return squared.mean(-1), divergence.mean(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average over the valid entries of a mask; 0 without any.

    Args:
        values: (B, W) or (B, W, ...), float.
        mask: True on valid entries, as ``values`` or its leading dimensions, bool.

    Returns:
        The mean over the mask's dimensions, (...).
    """
    dims = tuple(range(mask.dim()))
    mask = mask.view(*mask.shape, *[1] * (values.dim() - mask.dim()))
    return values.masked_fill(~mask, 0.0).sum(dims) / mask.sum(dims).clamp(min=1)
