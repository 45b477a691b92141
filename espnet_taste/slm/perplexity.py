"""How well a text LLM predicts texts: perplexity of what was said.

Symbols: B batch, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from espnet_taste.layers.precision import in_float64, usable_dtype
from espnet_taste.slm.losses import refuse_scaled_logits, text_losses
from espnet_taste.slm.text import LlmText, load_llm
from espnet_taste.types import IGNORE


@dataclass(frozen=True)
class TextNats:
    """Negative log-likelihood of one text; sums, so that texts can be pooled."""

    nats: float
    num_tokens: int


class TextLM:
    """A causal LM that reads text alone.

    Args:
        llm: Name or folder.
        device: Torch device.
        dtype: Precision of its weights; float32 where the device lacks it.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If it has neither a start nor an end symbol to begin with, or scales
            its logits.
    """

    def __init__(
        self, llm: str, device: str = "cpu", dtype: torch.dtype = torch.bfloat16
    ):
        self.name = llm
        dtype = usable_dtype(dtype, device)
        self._build(LlmText(llm), load_llm(llm, dtype).to(device))

    def _build(self, text: LlmText, llm: PreTrainedModel) -> None:
        config = llm.config.get_text_config()
        refuse_scaled_logits(config)
        tokenizer = text.tokenizer
        starts = (config.bos_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
        known = [index for index in starts if index is not None]
        if not known:
            raise ValueError("this LLM has no symbol that a text could begin with")
        self.text, self.llm, self.start_id = text, llm, known[0]
        self.max_positions = getattr(config, "max_position_embeddings", None)

    @torch.no_grad()
    def score(self, texts: Sequence[str]) -> list[TextNats]:
        """Score texts in one batch, each behind the start symbol.

        Args:
            texts: Texts; an empty one has no token and no loss.

        Raises:
            ValueError: If a text is longer than the LLM's context.
        """
        rows = [self.text.encode(text) for text in texts]
        longest = max(map(len, rows), default=0)
        if longest == 0:
            return [TextNats(0.0, 0) for _ in rows]
        if self.max_positions is not None and longest > self.max_positions:
            place = [len(row) for row in rows].index(longest)
            raise ValueError(
                f"'{texts[place][:40]}' has {longest} tokens, the LLM reads "
                f"{self.max_positions}"
            )
        labels = torch.full((len(rows), longest), IGNORE)
        for label, row in zip(labels, rows, strict=True):
            label[: len(row)] = torch.tensor(row, dtype=torch.long)
        labels = labels.to(self.llm.device)
        start = torch.full_like(labels[:, :1], self.start_id)
        # Rows are padded on the right, where a causal model cannot see.
        inputs = torch.cat([start, labels[:, :-1].clamp(min=0)], dim=1)
        hidden = self.llm.base_model(inputs, use_cache=True).last_hidden_state
        losses = text_losses(hidden, labels, self.llm.get_output_embeddings())
        nats = in_float64(losses.ce).sum(1).tolist()
        return [TextNats(n, len(row)) for n, row in zip(nats, rows, strict=True)]
