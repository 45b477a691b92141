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
from torch import Tensor, nn
from transformers import PretrainedConfig

from espnet_taste.layers.latent_head import Latent
from espnet_taste.types import IGNORE

MAX_LOGITS = 2**24
"""Logits held at a time: 64 MiB in float32, 131 positions of Llama 3."""

MAX_CPU_LOGITS = 2**22
"""The same on a CPU, where malloc takes larger blocks from the system every time."""

# What Gemma, Cohere, Granite, Falcon-H1 and RecurrentGemma call it.
_LOGIT_SETTINGS = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "logits_soft_cap",
)


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
class SpokenLMOutput:
    """Loss of a batch and everything it is made of; means are over the batch."""

    loss: Tensor  # (), the weighted total; has the gradient
    text_loss: Tensor  # (), mixture of the next two
    text_ce: Tensor  # (), nats per token
    text_kl: Tensor  # (), nats per token; 0 if its share is 0
    taste_loss: Tensor  # (), of the head
    taste_terms: dict[str, Tensor]  # the head's terms: name to () or (Q,)
    text_accuracy: Tensor  # (), share of tokens that are the best one, 0..1
    code_accuracy: Tensor  # (Q,), share of codes that are the chosen one, 0..1
    num_tokens: Tensor  # (), int64, predicted tokens
    num_words: Tensor  # (), int64, predicted words
    codes: Tensor  # (B, W, Q) int64, the chosen codes; any value on padding


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
    again, for the backward pass. It is written out, because automatic
    differentiation takes more passes over the logits, which are the cost.
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
        gradient = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        ce, kl = hidden.new_zeros(2, hidden.size(0), dtype=torch.float32)
        hits = torch.zeros_like(labels, dtype=torch.bool)
        share = 0.0 if reference is None else kl_share
        limit = MAX_CPU_LOGITS if hidden.device.type == "cpu" else MAX_LOGITS
        step = max(1, limit // head.weight.size(0))
        for start in range(0, hidden.size(0), step):
            part = slice(start, start + step)
            log_probs = _log_probs(hidden[part], head)
            base = None if reference is None else _log_probs(reference[part], head)
            *terms, target = _text_terms(log_probs, base, labels[part])
            ce[part], kl[part], hits[part] = terms
            if gradient is not None:
                slope = _logit_gradient(log_probs, target, labels[part], share)
                gradient[part] = slope.to(head.weight.dtype) @ head.weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(ce, kl, hits)
        return ((1 - share) * ce + share * kl).sum(), ce, kl, hits

    @staticmethod
    def backward(ctx: Any, grad_mixed: Tensor, *_: Tensor) -> tuple[Any, ...]:
        """Scale the stored gradient; it is of a sum, so half precision holds it."""
        (gradient,) = ctx.saved_tensors
        return gradient * grad_mixed.to(gradient.dtype), None, None, None, None


def _log_probs(hidden: Tensor, head: nn.Module) -> Tensor:
    return head(hidden).float().log_softmax(-1)


def _text_terms(
    log_probs: Tensor, reference: Tensor | None, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return cross-entropy, divergence and hits of one chunk, each (N,).

    The passes over (N, V) are the cost, so ``reference`` (log-probabilities too) is
    used up. The last result is the reference's distribution, (N, V).
    """
    is_label = labels != IGNORE
    ce = -log_probs.gather(-1, labels.clamp(min=0)[:, None])[:, 0]
    hits = log_probs.argmax(-1) == labels
    ce = ce.masked_fill(~is_label, 0.0)  # padding may hold anything, NaN too
    if reference is None:
        return ce, torch.zeros_like(ce), hits, None
    target = reference.exp()
    kl = reference.sub_(log_probs).mul_(target).sum(-1)
    return ce, kl.masked_fill(~is_label, 0.0), hits, target


def _logit_gradient(
    log_probs: Tensor, target: Tensor | None, labels: Tensor, share: float
) -> Tensor:
    """Return the gradient of a chunk's loss w.r.t. its logits, in place.

    Both terms pull the distribution p to a target, so it is p - (1 - share) * label
    - share * target.
    """
    gradient = log_probs.exp_()
    if target is not None:
        gradient.sub_(target, alpha=share)
    label = labels.clamp(min=0)[:, None]
    gradient.scatter_add_(-1, label, gradient.new_full(label.shape, share - 1))
    return gradient.masked_fill_((labels == IGNORE)[:, None], 0.0)


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


def refuse_scaled_logits(config: PretrainedConfig) -> None:
    """Refuse LLMs whose logits are more than their output layer.

    Raises:
        ValueError: It names the setting.
    """
    for name in _LOGIT_SETTINGS:
        if getattr(config, name, None) not in (None, 1, 1.0):
            raise ValueError(
                f"{config.model_type} changes its logits by '{name}', which the "
                "chunked text loss does not know; use another LLM"
            )
