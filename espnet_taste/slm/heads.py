"""From the LLM output to the codes of a word: heads with one contract.

``LatentCodeHead`` predicts the summed code and quantizes it (the released model);
``LinearCodeHead`` predicts every codebook's index from logits; ``JointCodeHead`` learns
both. All see only the outputs that end a word, so positions inside words cost nothing.

Symbols: W words, H LLM width, Q codebooks, K codebook size, d codebook width.

Source: TASTE (arXiv:2504.07053), output module of the spoken LM.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espnet_taste.layers.latent_head import Latent, LatentEval, LatentHead
from espnet_taste.sampling import RandomSource, Sampler
from espnet_taste.slm.losses import latent_losses, masked_mean
from espnet_taste.types import IGNORE


class Codebooks(Protocol):
    """What the spoken LM needs of a residual quantizer."""

    num_codebooks: int
    codebook_size: int
    codebook_dim: int

    def sum_codes(self, codes: Tensor) -> Tensor:
        """Add the entries of a code row, (..., Q) -> (..., d)."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the TASTE embedding of a code row, (..., Q) -> (..., D)."""

    def quantize_latent(self, latent: Tensor) -> Tensor:
        """Find codes whose entries add up to about a latent, (..., d) -> (..., Q)."""


@dataclass(frozen=True)
class CodeLosses:
    """Loss of a head and its terms by word."""

    loss: Tensor  # (), mean over the words of the batch
    terms: dict[str, Tensor]  # name to (B, W) or (B, W, Q); any value on padding


class AbsCodeHead(nn.Module, ABC):
    """Contract of a head: predict, compare with the truth, choose codes.

    What ``forward`` returns is the head's own business; the caller only hands it
    back to the other two methods.
    """

    @abstractmethod
    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> Any:
        """Predict.

        Args:
            hidden: LLM output where words end, (B, W, H), float32.
            noise: Noise of the train mode, if the head has any, else ignored.

        Returns:
            The prediction.
        """

    @abstractmethod
    def losses(
        self, prediction: Any, codes: Tensor, codebooks: Codebooks
    ) -> CodeLosses:
        """Compare a prediction with the codes.

        Args:
            prediction: What ``forward`` returned for (B, W, H).
            codes: Codes of the words, (B, W, Q), int64, IGNORE on padding.
            codebooks: The frozen quantizer.

        Returns:
            The loss to train on and what it is made of.
        """

    @abstractmethod
    def log_likelihoods(
        self, prediction: Any, codes: Tensor, codebooks: Codebooks
    ) -> Tensor:
        """Return how likely the true codes are.

        Args:
            prediction: What ``forward`` returned for (B, W, H).
            codes: Codes of the words, (B, W, Q), int64, IGNORE on padding.
            codebooks: The frozen quantizer.

        Returns:
            Nats, (B, W, S), float32, S streams that are predicted apart; any value on
            padding.
        """

    def latent_losses(
        self, prediction: Any, codes: Tensor, codebooks: Codebooks
    ) -> Tensor | None:
        """Return the released loss of every word, (B, W), float32; any on padding.

        None of a head that predicts no latent alone. Arguments as above.
        """
        return None

    @abstractmethod
    def choose(
        self,
        prediction: Any,
        codebooks: Codebooks,
        *,
        sampler: Sampler | None = None,
        source: RandomSource = None,
    ) -> Tensor:
        """Choose codes, (..., Q), int64.

        Args:
            prediction: What ``forward`` returned.
            codebooks: The frozen quantizer.
            sampler: How to choose if the head has logits; None = the best.
            source: Source of randomness.

        Returns:
            Codes without IGNORE.
        """


class LatentCodeHead(AbsCodeHead):
    """Gaussian over the summed code.

    Args:
        hidden_dim: LLM width H.
        latent_dim: Codebook width d.
        eval_latent: Point taken in eval mode, see ``LatentHead``.
        kl_share: Share of the divergence in the loss; the rest is squared error.
    """

    def __init__(
        self,
        hidden_dim: int,
        latent_dim: int,
        eval_latent: LatentEval = "mu_sigma",
        kl_share: float = 0.5,
    ):
        super().__init__()
        self.latent = LatentHead(hidden_dim, latent_dim, eval_latent)
        self.kl_share = kl_share

    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> Latent:
        """Predict the latent of every word; see ``AbsCodeHead.forward``."""
        return self.latent(hidden, noise)

    def losses(
        self, prediction: Latent, codes: Tensor, codebooks: Codebooks
    ) -> CodeLosses:
        """Return the mixture of ``latent_mse`` and ``latent_kl``, each (B, W).

        ``latent_error`` is the squared error of the mean, which is no part of the
        loss: the value has the noise, or the offset, of the released model.
        """
        target = codebooks.sum_codes(codes)
        mse, kl = latent_losses(prediction, target)
        mixed = self._mix(mse, kl)
        loss = masked_mean(mixed, codes[..., 0] != IGNORE)
        error = (prediction.mu.detach() - target).square().mean(-1)
        terms = {"latent_mse": mse, "latent_kl": kl, "latent_error": error}
        return CodeLosses(loss, terms)

    def log_likelihoods(
        self, prediction: Latent, codes: Tensor, codebooks: Codebooks
    ) -> Tensor:
        """Return the density of the summed code under the Gaussian, (B, W, 1)."""
        distance = (prediction.mu - codebooks.sum_codes(codes)).square()
        terms = prediction.logvar + distance / prediction.logvar.exp()
        return -0.5 * (terms + math.log(2 * math.pi)).sum(-1, keepdim=True)

    def latent_losses(
        self, prediction: Latent, codes: Tensor, codebooks: Codebooks
    ) -> Tensor:
        """Return what training makes small; see ``AbsCodeHead.latent_losses``."""
        return self._mix(*latent_losses(prediction, codebooks.sum_codes(codes)))

    def _mix(self, mse: Tensor, kl: Tensor) -> Tensor:
        return (1 - self.kl_share) * mse + self.kl_share * kl

    @torch.no_grad()
    def choose(
        self,
        prediction: Latent,
        codebooks: Codebooks,
        *,
        sampler: Sampler | None = None,
        source: RandomSource = None,
    ) -> Tensor:
        """Quantize the latent; a latent has no logits, so nothing is drawn."""
        return codebooks.quantize_latent(prediction.value)


class LinearCodeHead(AbsCodeHead):
    """Logits over the entries of every codebook, all from one linear layer.

    Args:
        hidden_dim: LLM width H.
        num_codebooks: Number of codebooks Q.
        codebook_size: Entries per codebook K.
    """

    def __init__(self, hidden_dim: int, num_codebooks: int, codebook_size: int):
        super().__init__()
        self.shape = (num_codebooks, codebook_size)
        self.linear = nn.Linear(hidden_dim, num_codebooks * codebook_size)

    def forward(self, hidden: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return logits, (..., Q, K); see ``AbsCodeHead.forward``."""
        return self.linear(hidden).unflatten(-1, self.shape)

    def losses(
        self, prediction: Tensor, codes: Tensor, codebooks: Codebooks
    ) -> CodeLosses:
        """Return the mean over codebooks of ``code_ce``, (B, W, Q), in nats."""
        logits = prediction.movedim(-1, 1)  # classes second, as torch wants them
        ce = F.cross_entropy(logits, codes, ignore_index=IGNORE, reduction="none")
        per_codebook = masked_mean(ce, codes[..., 0] != IGNORE)
        return CodeLosses(per_codebook.mean(), {"code_ce": ce})

    def log_likelihoods(
        self, prediction: Tensor, codes: Tensor, codebooks: Codebooks
    ) -> Tensor:
        """Return the log-probability of every codebook's entry, (B, W, Q)."""
        index = codes.clamp(min=0)[..., None]
        return prediction.log_softmax(-1).gather(-1, index)[..., 0]

    @torch.no_grad()
    def choose(
        self,
        prediction: Tensor,
        codebooks: Codebooks,
        *,
        sampler: Sampler | None = None,
        source: RandomSource = None,
    ) -> Tensor:
        """Choose every codebook's entry on its own, from its own logits."""
        if sampler is None:
            return prediction.argmax(-1)
        flat = sampler.choose(prediction.flatten(0, -2), source=source)
        return flat.view(prediction.shape[:-1])


class JointCodeHead(AbsCodeHead):
    """Latent and logits from the same output; the loss is the mean of both losses.

    The logits choose the codes and say how likely they are: they are probabilities, and
    can be drawn from. The latent teaches which entries lie close to each other.

    Args:
        latent: Head of the summed code.
        linear: Head of the codes.
    """

    def __init__(self, latent: LatentCodeHead, linear: LinearCodeHead):
        super().__init__()
        self.latent = latent
        self.linear = linear

    def forward(
        self, hidden: Tensor, noise: Tensor | None = None
    ) -> tuple[Latent, Tensor]:
        """Return latent and logits; see ``AbsCodeHead.forward``."""
        return self.latent(hidden, noise), self.linear(hidden)

    def losses(
        self, prediction: tuple[Latent, Tensor], codes: Tensor, codebooks: Codebooks
    ) -> CodeLosses:
        """Return the terms of both heads."""
        parts = [
            head.losses(part, codes, codebooks)
            for head, part in zip((self.latent, self.linear), prediction, strict=True)
        ]
        loss = (parts[0].loss + parts[1].loss) / 2
        return CodeLosses(loss, parts[0].terms | parts[1].terms)

    def log_likelihoods(
        self, prediction: tuple[Latent, Tensor], codes: Tensor, codebooks: Codebooks
    ) -> Tensor:
        """Return the log-probability of every codebook's entry, (B, W, Q)."""
        return self.linear.log_likelihoods(prediction[1], codes, codebooks)

    def choose(
        self,
        prediction: tuple[Latent, Tensor],
        codebooks: Codebooks,
        *,
        sampler: Sampler | None = None,
        source: RandomSource = None,
    ) -> Tensor:
        """Choose by the logits."""
        return self.linear.choose(
            prediction[1], codebooks, sampler=sampler, source=source
        )


def build_head(
    head: str | AbsCodeHead,
    width: int,
    codebooks: Codebooks,
    eval_latent: LatentEval,
    kl_share: float,
) -> AbsCodeHead:
    """Build the head of a spoken LM.

    Args:
        head: ``"latent"`` (released), ``"linear"``, ``"both"``, or a head, which is
            returned.
        width: LLM width H.
        codebooks: The quantizer.
        eval_latent: Point the latent head takes in eval mode, see ``LatentHead``.
        kl_share: Share of the divergence in the loss of the latent.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(head, AbsCodeHead):
        return head
    names = ("latent", "linear", "both")
    if head not in names:
        raise ValueError(f"head must be one of {names} or a module, got '{head}'")
    latent = LatentCodeHead(width, codebooks.codebook_dim, eval_latent, kl_share)
    if head == "latent":
        return latent
    linear = LinearCodeHead(width, codebooks.num_codebooks, codebooks.codebook_size)
    return linear if head == "linear" else JointCodeHead(latent, linear)
