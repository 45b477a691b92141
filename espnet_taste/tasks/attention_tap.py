"""Show ESPnet's attention plotter what the aggregator attends to.

The plotter looks for ESPnet's own attention class and reads ``attn`` off it
after a forward pass. This parameter-free subclass is that door: it computes
anything only while somebody listens.
"""

import io
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from espnet_taste.layers.word_pooling import pool_words

# ESPnet prints here that flash_attn, which nothing of ours uses, is not there.
with redirect_stderr(io.StringIO()):
    from espnet2.legacy.nets.pytorch_backend.transformer.attention import (
        MultiHeadedAttention,
    )


class AttentionTap(MultiHeadedAttention):
    """Hold the last attention map, words against time."""

    def __init__(self):
        nn.Module.__init__(self)  # none of the parent's projections
        self.attn: Tensor | None = None

    @property
    def is_watched(self) -> bool:
        """True while a forward hook (ESPnet's plotter) is attached."""
        return bool(self._forward_hooks)

    def forward(self, attention: Tensor) -> Tensor:
        """Keep a map, (U, H, W, T), for the hook that is attached."""
        self.attn = attention
        return attention

    @torch.no_grad()
    def show(self, aggregator: nn.Module, batch: Any, states: Any) -> None:
        """Compute and show the aggregator's attention, one row a word.

        Args:
            aggregator: An aggregator with ``attention_maps``.
            batch: Tokens, token lengths and words of the utterances.
            states: Encoder states of the same utterances.
        """
        maps = aggregator.attention_maps(
            batch.tokens, batch.token_lengths, batch.words, states
        )  # (U, H, Ta, T)
        tokens_first = maps.float().mean(1)  # heads averaged, (U, Ta, T)
        pooled = pool_words(tokens_first, batch.words, batch.token_lengths)
        first = torch.ones_like(batch.words, dtype=torch.bool)
        first[:, 1:] = batch.words[:, 1:] != batch.words[:, :-1]
        # The plotter calls with one utterance at a time, so this is one row.
        rows = pooled[:, (first & batch.mask)[0]]
        self(rows[:, None])
