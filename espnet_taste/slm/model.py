"""Spoken LM: a text LLM that reads and predicts TASTE along with its tokens.

At every position the LLM reads a weighted sum of a token embedding and the TASTE of
the word D words ago, and gives two outputs: the next token, by the LLM's own output
layer, and, where a word ends, the codes of the word D words ago, by a new head. The
LLM is frozen; LoRA adapters, the fusion, the head and two pad vectors are trained.

Symbols: B batch, L fused positions, W words, H LLM width, D TASTE width (and word
delay, see ``delay``), d latent width, Q codebooks, V vocabulary.

Source: TASTE (arXiv:2504.07053), text-aligned spoken language model.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from espnet_taste.layers.attention_kernel import attention_kernel
from espnet_taste.layers.fusion import build_fusion
from espnet_taste.layers.latent_head import LatentEval
from espnet_taste.slm.delay import (
    PAD,
    DelayBatch,
    DelayLevel,
    text_labels,
    word_outputs,
)
from espnet_taste.slm.heads import AbsCodeHead, build_head
from espnet_taste.slm.lora import (
    adapt,
    adapters_disabled,
    freeze,
    set_adapter_mode,
    unfreeze_llm,
)
from espnet_taste.slm.losses import (
    LossWeights,
    SpokenLMOutput,
    masked_mean,
    refuse_scaled_logits,
    text_losses,
)
from espnet_taste.types import IGNORE


class SpokenLM(nn.Module):
    """LLM with LoRA, fusion and code head around a frozen quantizer.

    Args:
        llm: Causal LM of transformers, whose logits are one linear layer on its last
            hidden state, or the same with peft adapters. Frozen here; its dtype is
            kept (bf16 is fine), everything trained stays in float32.
        codebooks: Trained residual quantizer (``heads.Codebooks``); frozen here.
        taste_dim: Width D of the TASTE embeddings that ``codebooks`` decodes.
        taste_input: What of a word the LLM reads: its TASTE ``"embedding"``, behind
            the quantizer's ``project_out`` (released), or the ``"latent"`` before it,
            the sum of its codebook entries.
        delay: Delay of the TASTE stream, at least 1.
        delay_level: What ``delay`` counts, ``"word"`` (released) or ``"token"``.
        head: ``"latent"`` (released), ``"linear"``, ``"both"``, or a head of your own.
        eval_latent: Point the latent head takes in eval mode, see ``LatentHead``.
        head_skip: Add the TASTE that is read at a position to what the head sees there,
            by a linear layer that starts at zero. The released model has none; without
            it a short training hardly brings TASTE through a frozen LLM.
        fusion: ``"weighted_sum"`` (released), ``"gated"`` or ``"addition"``.
        lora: Options of ``attach_lora``; None adds no adapters.
        train_llm: Train the LLM's own layers instead; its embedding and its output
            layer rest. Then no reference is left, and ``weights.text_kl`` must be 0.
        sos_id: Start symbol; None takes the LLM's own.
        end_id: Symbol to predict behind the last token, e.g. the LLM's end symbol;
            None for the released way, which never learns to end.
        weights: Mixture of the losses.

    Raises:
        ValueError: If an option is unknown or does not go with another, or the LLM
            scales its logits or has no start symbol.
    """

    def __init__(
        self,
        llm: PreTrainedModel | PeftModel,
        codebooks: nn.Module,
        taste_dim: int,
        *,
        taste_input: str = "embedding",
        delay: int = 1,
        delay_level: DelayLevel = "word",
        head: str | AbsCodeHead = "latent",
        eval_latent: LatentEval = "mu_sigma",
        head_skip: bool = False,
        fusion: str = "weighted_sum",
        lora: Mapping[str, Any] | None = None,
        train_llm: bool = False,
        sos_id: int | None = None,
        end_id: int | None = None,
        weights: LossWeights = LossWeights(),
    ):
        super().__init__()
        if delay < 1:
            raise ValueError(f"delay must be at least 1, got {delay}")
        if delay_level not in ("word", "token"):
            raise ValueError(
                f"delay_level must be 'word' or 'token', got '{delay_level}'"
            )
        if taste_input not in ("embedding", "latent"):
            raise ValueError(
                f"taste_input must be 'embedding' or 'latent', got '{taste_input}'"
            )
        self.taste_input = taste_input
        self.delay = delay
        self.delay_level = delay_level
        self.weights = weights

        config = llm.config.get_text_config()
        refuse_scaled_logits(config)
        self.sos_id = config.bos_token_id if sos_id is None else sos_id
        if self.sos_id is None:
            raise ValueError(f"{config.model_type} has no start symbol; pass sos_id")
        self.end_id = end_id
        self.llm = adapt(llm, lora)
        self.trains_llm = train_llm
        if train_llm:
            unfreeze_llm(self.llm, weights.text_kl)
        self.codebooks = codebooks
        freeze(codebooks)

        width = config.hidden_size
        if taste_input == "latent":
            taste_dim = codebooks.codebook_dim
        self.taste_projection = nn.Linear(taste_dim, width)
        self.fusion = build_fusion(fusion, width)
        self.head = build_head(head, width, codebooks, eval_latent, weights.latent_kl)
        self.head_skip = None
        if head_skip:
            self.head_skip = nn.Linear(taste_dim, width, bias=False)
            nn.init.zeros_(self.head_skip.weight)
        self.pad_text = nn.Parameter(torch.zeros(width))
        self.pad_taste = nn.Parameter(torch.zeros(taste_dim))

    @property
    def causal_lm(self) -> PreTrainedModel:
        """The LLM without peft's wrapping; its linear layers keep the adapters."""
        return self.llm.get_base_model() if self.has_adapters else self.llm

    @property
    def has_adapters(self) -> bool:
        """Whether the LLM has LoRA adapters."""
        return isinstance(self.llm, PeftModel)

    @property
    def max_positions(self) -> int | None:
        """Positions in the LLM's context; None if it sets no limit."""
        config = self.causal_lm.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    @property
    def output_layer(self) -> nn.Linear:
        """The LLM's frozen output layer, H to V."""
        return self.causal_lm.get_output_embeddings()

    def train(self, mode: bool = True) -> "SpokenLM":
        """Switch the mode; frozen parts of the LLM and the quantizer stay in eval."""
        super().train(mode)
        if not self.trains_llm:
            set_adapter_mode(self.llm, mode)
        self.codebooks.eval()
        return self

    def forward(self, batch: DelayBatch, noise: Tensor | None = None) -> SpokenLMOutput:
        """Compute the losses of a batch, teacher forced.

        Args:
            batch: Layouts and codes.
            noise: Train-mode noise of the words' latents, (B, W, d); None draws it.

        Returns:
            The losses.
        """
        hidden = self.read(self.embed(batch))
        text_hidden, labels = self.text_positions(hidden, batch)
        share = self.weights.text_kl
        plain = self.read_text_only(batch) if share > 0 else None
        text = text_losses(
            text_hidden, labels, self.output_layer, reference=plain, kl_share=share
        )
        prediction = self.predict_words(hidden, batch, noise)
        taste = self.head.losses(prediction, batch.word_codes, self.codebooks)
        codes = self.head.choose(prediction, self.codebooks)

        is_token, is_word = labels != IGNORE, batch.word_codes[..., 0] != IGNORE
        text_loss = text.mixed / text.count.clamp(min=1)
        return SpokenLMOutput(
            loss=self.weights.text * text_loss + self.weights.taste * taste.loss,
            text_loss=text_loss,
            text_ce=masked_mean(text.ce, is_token),
            text_kl=masked_mean(text.kl, is_token),
            taste_loss=taste.loss,
            taste_terms={
                name: masked_mean(term.detach(), is_word)
                for name, term in taste.terms.items()
            },
            text_accuracy=masked_mean(text.hits.float(), is_token),
            code_accuracy=masked_mean((codes == batch.word_codes).float(), is_word),
            num_tokens=text.count,
            num_words=is_word.sum(),
            codes=codes,
        )

    def embed(self, batch: DelayBatch) -> Tensor:
        """Return what the LLM reads: the start symbol, then the fused positions.

        Args:
            batch: Layouts and codes.

        Returns:
            (B, L + 1, H), in the LLM's dtype; any value behind the end of a row.
        """
        text = self.embed_tokens(batch.tokens).float()
        text = torch.where((batch.tokens == PAD)[..., None], self.pad_text, text)
        taste = self.lookup_taste(batch)
        return torch.cat([self.embed_start(len(text)), self.fuse(taste, text)], dim=1)

    def lookup_taste(self, batch: DelayBatch) -> Tensor:
        """Return the TASTE embedding of every fused position.

        Args:
            batch: Layouts and codes.

        Returns:
            (B, L, D) or (B, L, d), float32; the learned pad where no word has arrived.
        """
        words = self.embed_codes(batch.word_codes)
        taste = _gather_rows(words, batch.taste_words.clamp(min=0))
        return torch.where((batch.taste_words >= 0)[..., None], taste, self.pad_taste)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """Return what the LLM reads of code rows, (..., Q) -> (..., D) or (..., d)."""
        if self.taste_input == "latent":
            return self.codebooks.sum_codes(codes)
        return self.codebooks.decode(codes)

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Return token embeddings, (...) -> (..., H); negative ids give any value."""
        return self.causal_lm.get_input_embeddings()(tokens.clamp(min=0))

    def embed_start(self, num_rows: int) -> Tensor:
        """Return the start symbol, (num_rows, 1, H), in the LLM's dtype."""
        sos = torch.full((num_rows, 1), self.sos_id, device=self.pad_text.device)
        return self.embed_tokens(sos)

    def fuse(self, taste: Tensor, text: Tensor) -> Tensor:
        """Mix the two streams in float32, then round to what the LLM computes in.

        Args:
            taste: TASTE embeddings or latents, (..., D) or (..., d).
            text: Token embeddings, (..., H).

        Returns:
            (..., H), in the LLM's dtype.
        """
        dtype = self.causal_lm.get_input_embeddings().weight.dtype
        with torch.autocast(taste.device.type, enabled=False):
            taste = self.taste_projection(taste)
            return self.fusion(taste, text.float()).to(dtype)

    def read(self, inputs: Tensor, llm: PreTrainedModel | None = None) -> Tensor:
        """Run the LLM, or another of its kind, over whole sequences.

        There is no mask: rows are padded on the right, where a causal model cannot see.
        A cache is asked for and dropped, because without one transformers looks for
        packed rows, which waits for the device.

        Args:
            inputs: (B, N, H), in the LLM's dtype.
            llm: Another one of the same width; None for our own.

        Returns:
            Last hidden states after the final norm, (B, N, H), in the LLM's dtype.
        """
        backbone = (self.causal_lm if llm is None else llm).base_model
        with attention_kernel(inputs.device):
            return backbone(inputs_embeds=inputs, use_cache=True).last_hidden_state

    def read_on(
        self, inputs: Tensor, past: Cache | None, mask: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """Run the LLM over the next positions only, with what it remembers.

        Args:
            inputs: (B, N, H), in the LLM's dtype.
            past: Cache of the positions so far; None at the start.
            mask: True on valid positions, those of the past included, (B, P + N),
                bool; rows are padded on the left. None if there is no padding.

        Returns:
            Last hidden state of the last position, (B, H), and the cache, which is
            changed in place.
        """
        masks = {}
        if mask is not None:
            # A row that has ended may run past the context while others go on.
            last = None if self.max_positions is None else self.max_positions - 1
            positions = (mask.cumsum(-1) - 1).clamp(0, last)[:, -inputs.size(1) :]
            masks = {"attention_mask": mask.long(), "position_ids": positions}
        out = self.causal_lm.base_model(
            inputs_embeds=inputs, past_key_values=past, use_cache=True, **masks
        )
        return out.last_hidden_state[:, -1], out.past_key_values

    @torch.no_grad()
    def read_text_only(
        self,
        batch: DelayBatch,
        adapted: bool = False,
        llm: PreTrainedModel | None = None,
    ) -> Tensor:
        """Run the LLM without TASTE over the same tokens.

        Args:
            batch: Layouts; the codes are not read.
            adapted: With its adapters; without them it is the text LLM.
            llm: What is run instead, with the same embedding.

        Returns:
            Last hidden states where a token is predicted, (B, L - delay, H), in the
            LLM's dtype; one more where an end is.
        """
        tokens = batch.tokens[:, : self._num_text_outputs(batch) - 1]
        inputs = [self.embed_start(len(tokens)), self.embed_tokens(tokens)]
        with nullcontext() if adapted else adapters_disabled(self.llm):
            return self.read(torch.cat(inputs, dim=1), llm)

    def text_positions(
        self, hidden: Tensor, batch: DelayBatch
    ) -> tuple[Tensor, Tensor]:
        """Cut to the positions that predict a token; no row has one behind them.

        Args:
            hidden: (B, L + 1, H).
            batch: Layouts.

        Returns:
            Hidden states (B, L - delay, H) and labels (B, L - delay), int64, IGNORE
            behind the last token of a row; one more where an end is predicted.
        """
        stop = self._num_text_outputs(batch)
        return hidden[:, :stop], text_labels(batch.tokens, self.end_id)[:, :stop]

    def _num_text_outputs(self, batch: DelayBatch) -> int:
        """Return how many outputs predict a token in the longest row."""
        return batch.tokens.size(1) - self.delay + (self.end_id is not None)

    def predict_words(
        self, hidden: Tensor, batch: DelayBatch, noise: Tensor | None = None
    ) -> Any:
        """Run the head where words end, and nowhere else.

        Args:
            hidden: (B, L + 1, H).
            batch: Layouts and codes, the ones that ``hidden`` has read.
            noise: (B, W, d) or None, see ``forward``.

        Returns:
            The head's prediction, one row a word, (B, W, ...).
        """
        outputs = word_outputs(batch.label_words, batch.word_codes.size(1))
        at_words = _gather_rows(hidden, outputs)
        taste = None
        if self.head_skip is not None:
            # The first output has read the start symbol alone, and predicts no word.
            taste = _gather_rows(self.lookup_taste(batch), (outputs - 1).clamp(min=0))
        return self.run_head(at_words, noise, taste)

    def run_head(
        self, hidden: Tensor, noise: Tensor | None = None, taste: Tensor | None = None
    ) -> Any:
        """Run the head in float32.

        Args:
            hidden: LLM output, (..., H).
            noise: As in ``forward``.
            taste: What was read at the same positions, (..., D) or (..., d); not
                needed without ``head_skip``.
        """
        with torch.autocast(hidden.device.type, enabled=False):
            seen = hidden.float()
            if self.head_skip is not None:
                seen = seen + self.head_skip(taste)
            return self.head(seen, noise)


def _gather_rows(rows: Tensor, index: Tensor) -> Tensor:
    """Choose rows of (B, N, C) by (B, M): (B, M, C)."""
    return rows.gather(1, index[..., None].expand(-1, -1, rows.size(-1)))
