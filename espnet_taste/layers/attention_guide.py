"""Show attention heads where to look, from known times of words.

``AttentionGuide`` is for the unit LM, ``SpeechGuide`` for the aggregator.

On little data a unit LM hardly finds out which word it is speaking: the history of
units predicts the next one well enough. Forced alignment knows the word, so one head
of chosen layers is asked to look at its tokens. Only training is changed; a trained
model needs no times.

The aggregator starts from a recogniser whose heads look at many places, few of them
the word at hand. What its features know of the word would take long to grow.

Symbols: N positions of a batch, n blocks of c positions, H heads; B utterances, L
tokens, T encoder frames.

Source: guided attention (arXiv:1710.08969), with times instead of a diagonal.
"""

from typing import Any

import torch
from torch import Tensor

Sizes = tuple[tuple[int, int], ...]


class MissedAttention(torch.autograd.Function):
    """Minus the log share of attention on a target, zero where there is none.

    That is ``scores.logsumexp(-1) - scores[target].logsumexp(-1)``. Written by the
    shares alone, which attention has made already: on a CPU the exponential function
    that logsumexp calls takes up to twenty times as long on masked scores, and so did
    its gradient. A share too small for float32 counts as the smallest there is.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, shares: Tensor) -> Tensor:
        """Return the loss of every query.

        Args:
            ctx: Of autograd.
            scores: (..., L, T), float32; only their gradient is needed.
            target: Broadcasts to them, bool; only where scores are finite.
            shares: ``scores.softmax(-1)``; NaN where a query attends nothing.

        Returns:
            (..., L), float32.
        """
        nothing = ~target.any(-1, keepdim=True)
        aimed = shares.masked_fill(~target, 0.0)
        total = aimed.sum(-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        slope = torch.addcmul(shares, aimed, -total.reciprocal())
        ctx.save_for_backward(slope.masked_fill_(nothing, 0.0))
        return -total.log().masked_fill(nothing, 0.0)[..., 0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the scores."""
        (slope,) = ctx.saved_tensors
        return slope * grad[..., None], None, None


class AttentionGuide:
    """Collect, over one forward pass, how little the guided heads look at their word.

    Args:
        queries: Word whose unit a position predicts, (N,), int64, negative where none.
            Words of different rows have different numbers.
        keys: Word that a text position belongs to, (N,), int64, negative elsewhere.
        sizes: Blocks as in ``CausalBlocks``.
        layers: Layers whose first head is guided.
    """

    def __init__(
        self, queries: Tensor, keys: Tensor, sizes: Sizes, layers: tuple[int, ...]
    ):
        self.layers = layers
        self.count = (queries >= 0).sum().clamp(min=1)
        self.losses: list[Tensor] = []
        lengths = [n * c for n, c in sizes]
        groups = zip(queries.split(lengths), keys.split(lengths), sizes, strict=True)
        self.targets = [
            (q.view(n, c, 1) == k.view(n, 1, c)) & (q >= 0).view(n, c, 1)
            for q, k, (n, c) in groups
        ]

    def read(self, group: int, queries: Tensor, keys: Tensor, bias: Tensor) -> None:
        """Add one group of blocks of one layer.

        Args:
            group: Number of the group.
            queries: Scaled queries, (H, n, c, dk).
            keys: (H, n, c, dk).
            bias: Positional scores and mask, (H, n, c, c).
        """
        target = self.targets[group]
        scores = torch.baddbmm(bias[0], queries[0], keys[0].transpose(1, 2)).float()
        with torch.no_grad():
            shares = scores.softmax(-1)
        self.losses.append(MissedAttention.apply(scores, target, shares).sum())

    def loss(self) -> Tensor:
        """Return minus the log share of attention on the right word, a mean, ()."""
        return torch.stack(self.losses).sum() / (self.count * len(self.layers))


class SpeechGuide:
    """Collect, over one forward pass, how little tokens listen to their own word.

    All heads of all layers are guided: each carries its own part of the values.

    Args:
        target: True where a token's word is spoken, (B, L, T), bool.
    """

    def __init__(self, target: Tensor):
        self.target = target[:, None]
        self.is_aimed = self.target.any(-1)  # (B, 1, L)
        self.losses: list[Tensor] = []

    def read(self, scores: Tensor, shares: Tensor) -> None:
        """Add one layer.

        Args:
            scores: (B, H, L, T), float32, minus infinity where masked.
            shares: Their softmax.
        """
        missed = MissedAttention.apply(scores, self.target, shares.detach())
        count = self.is_aimed.sum().clamp(min=1) * scores.size(1)
        self.losses.append(missed.sum() / count)

    def loss(self) -> Tensor:
        """Return minus the log share of attention on the own word, a mean, ()."""
        return torch.stack(self.losses).mean()


class GuidedSteps:
    """Which steps of a training are guided: the first ones, then one of several.

    Counts on the host from the first step that it is asked for, so that no other step
    waits for the device.

    Args:
        every: One step of so many is guided, 1 or more.
        first: Steps at the start that all are.

    Raises:
        ValueError: If ``every`` is below 1.
    """

    def __init__(self, every: int = 1, first: int = 0):
        if every < 1:
            raise ValueError(
                f"of every {every} steps none can be guided; give 1 or more"
            )
        self.every = every
        self.first = first
        self.step: int | None = None

    def is_next(self, num_steps: Tensor) -> bool:
        """Tell whether the step that begins is guided; to be asked once a step.

        Args:
            num_steps: Steps before this one, (), int64; read at the first call only.
        """
        if self.step is None:
            self.step = int(num_steps)
        is_guided = self.step < self.first or self.step % self.every == 0
        self.step += 1
        return is_guided


def frames_of_times(
    times: Tensor, num_frames: Tensor, width: int, frame_rate_hz: float
) -> Tensor:
    """Return which frames belong to spans of time.

    Args:
        times: Start and end in seconds, (B, L, 2), float; an empty span belongs to
            padding and has no frames.
        num_frames: Frames of every utterance, (B,), int.
        width: T, at least as many.
        frame_rate_hz: Frames a second.

    Returns:
        (B, L, T), bool; at least one frame a span that starts inside the utterance.
    """
    frame = torch.arange(width, device=times.device)
    start = (times[..., :1] * frame_rate_hz).floor()
    stop = (times[..., 1:] * frame_rate_hz).ceil()
    is_real = times[..., 1:] > times[..., :1]
    inside = (frame < num_frames.to(times.device)[:, None])[:, None]
    return (frame >= start) & (frame < stop) & is_real & inside
