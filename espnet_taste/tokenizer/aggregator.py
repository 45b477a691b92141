"""Aggregator: Whisper's decoder reads the transcript and listens for each token.

The transcript is fed in behind the usual prefix. The output at a token's own
position is the feature of the token: it has seen the text up to and including
the token, and all of the speech. Keys come from the final encoder output, which
knows what was said; values from a shallow layer, which still knows how.

Symbols: B batch, Ta transcript tokens, P prefix tokens, T encoder frames, D width,
H heads.

Source: TASTE (arXiv:2504.07053), tokenizer; reference forward type
``asr_attn_pooling``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import (
    WhisperAttention,
    WhisperDecoder,
)

from espnet_taste.layers.attention_guide import SpeechGuide, frames_of_times
from espnet_taste.layers.attention_kernel import attention_kernel
from espnet_taste.layers.precision import is_float16
from espnet_taste.layers.word_pooling import pool_words
from espnet_taste.tokenizer.contracts import AbsAggregator
from espnet_taste.tokenizer.encoder import FRAME_SAMPLES
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.tokenizer.text import WhisperText
from espnet_taste.tokenizer.whisper import load_whisper, require_sdpa
from espnet_taste.types import SAMPLE_RATE_HZ

FRAME_RATE_HZ = SAMPLE_RATE_HZ / FRAME_SAMPLES


class KeyValueAttention(nn.Module):
    """Cross-attention whose keys and values come from different states.

    It takes over the projections of Whisper's cross-attention under their names
    and stands in its place.

    Args:
        attention: The cross-attention to take over.
    """

    def __init__(self, attention: WhisperAttention):
        super().__init__()
        self.num_heads = attention.num_heads
        self.q_proj = attention.q_proj
        self.k_proj = attention.k_proj
        self.v_proj = attention.v_proj
        self.out_proj = attention.out_proj
        self.maps: list[Tensor] | None = None  # a list collects attention maps
        self.guide: SpeechGuide | None = None  # watches the scores in training

    def set_value_identity(self) -> None:
        """Let the values through as they are."""
        nn.init.eye_(self.v_proj.weight)
        nn.init.zeros_(self.v_proj.bias)

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: EncoderStates,
        attention_mask: Tensor,
        **unused: object,
    ) -> tuple[Tensor, None]:
        """Attend; called by Whisper's decoder layer with its own keywords.

        Args:
            hidden_states: Queries, (B, L, D).
            key_value_states: Encoder states, T frames.
            attention_mask: True on frames that may be attended, (B, 1, 1, T).
            **unused: What the layer passes on for caching.

        Returns:
            (B, L, D) and the None that the layer expects.
        """
        query = self._heads(self.q_proj(hidden_states))
        key = self._heads(self.k_proj(key_value_states.keys))
        value = self._heads(self.v_proj(key_value_states.values))
        if self.maps is None and self.guide is None:
            attended = F.scaled_dot_product_attention(
                query, key, value, attn_mask=attention_mask
            )
        else:
            attended = self._watched(query, key, attention_mask).to(value) @ value
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None

    def _watched(self, query: Tensor, key: Tensor, attention_mask: Tensor) -> Tensor:
        """Show the scores to who watches; return the attention, (B, H, L, T)."""
        # Queries are the fewer, so they are scaled; what the product made is ours.
        query = query * query.size(-1) ** -0.5
        scores = (query @ key.transpose(2, 3)).float()
        scores = scores.masked_fill_(~attention_mask, float("-inf"))
        weights = scores.softmax(-1)
        if self.maps is not None:
            self.maps.append(weights)
        if self.guide is not None:
            self.guide.read(scores, weights)
        return weights

    def _heads(self, states: Tensor) -> Tensor:
        """(B, L, D) -> (B, H, L, D / H)."""
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class WhisperAggregator(AbsAggregator):
    """Whisper's decoder as aggregator, initialised from its checkpoint.

    Parameter names below ``decoder.`` are those of transformers. Whisper's end
    token is not fed in: it would stand behind all positions that are used.

    Args:
        model: Whisper weights, name or folder; should be the encoder's.
        value_identity: Overwrite the value projections of the cross-attention by
            the identity, so that training starts from the plain shallow states.
        from_config: Sizes of a Whisper to build with random weights instead of the
            checkpoint's; the prefix still comes from ``model``.
        language: Language of the transcripts, for the prefix.
        freeze_embeddings: Train neither token nor position table. The token table
            is most of a small Whisper, and fresh data has few of its rows.
    """

    needs_whisper = True

    def __init__(
        self,
        model: str = "openai/whisper-tiny.en",
        value_identity: bool = True,
        from_config: dict | None = None,
        *,
        language: str = "en",
        freeze_embeddings: bool = False,
    ):
        super().__init__()
        if from_config is None:
            decoder = load_whisper(model).decoder
        else:
            decoder = build_decoder(WhisperConfig(**from_config))
        prefix_ids = WhisperText(model, language).prefix_ids
        self._build(decoder, prefix_ids, value_identity, freeze_embeddings)

    @classmethod
    def from_module(
        cls,
        decoder: WhisperDecoder,
        prefix_ids: Sequence[int],
        value_identity: bool = True,
        *,
        freeze_embeddings: bool = False,
    ) -> "WhisperAggregator":
        """Take over a transformers decoder instead of loading one by name.

        Args:
            decoder: A decoder whose attention is "sdpa"; it is changed.
            prefix_ids: Token ids that stand in front of every transcript.
            value_identity: As in the constructor.
            freeze_embeddings: As in the constructor.
        """
        aggregator = cls.__new__(cls)
        nn.Module.__init__(aggregator)
        aggregator._build(decoder, prefix_ids, value_identity, freeze_embeddings)
        return aggregator

    def _build(
        self,
        decoder: WhisperDecoder,
        prefix_ids: Sequence[int],
        value_identity: bool,
        freeze_embeddings: bool,
    ) -> None:
        require_sdpa(decoder)
        for layer in decoder.layers:
            layer.encoder_attn = KeyValueAttention(layer.encoder_attn)
            if value_identity:
                layer.encoder_attn.set_value_identity()
            # The released model trains without dropout.
            layer.dropout = layer.activation_dropout = layer.self_attn.dropout = 0.0
        self.decoder = decoder
        # Under float16, released weights add tokens and positions in the type that
        # they are stored in; autocast leaves a sum alone.
        self.embedding_dtype: torch.dtype | None = None
        self.register_buffer("prefix_ids", torch.tensor(prefix_ids), persistent=False)
        self.max_tokens = decoder.config.max_target_positions - len(prefix_ids)
        if freeze_embeddings:
            self.frozen_parts = ("decoder.embed_tokens", "decoder.embed_positions")
            for part in self.frozen_parts:
                self.get_submodule(part).requires_grad_(False)

    def output_size(self) -> int:
        """Return D."""
        return self.decoder.config.d_model

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
        states: EncoderStates,
        guide: SpeechGuide | None = None,
    ) -> Tensor:
        """Gather the speech behind every word; see the contract.

        Raises:
            ValueError: If there are more tokens than the decoder has positions, or
                the batches do not agree.
        """
        with self._attentions(guide=guide):
            features = self.token_features(tokens, token_lengths, states)
        return pool_words(features, words, token_lengths)

    def guide(self, token_times: Tensor, states: EncoderStates) -> SpeechGuide:
        """Return a guide to the times of words; see the contract."""
        num_frames, width = states.lengths, states.keys.size(1)
        target = frames_of_times(token_times, num_frames, width, FRAME_RATE_HZ)
        return SpeechGuide(F.pad(target, (0, 0, self.prefix_ids.numel(), 0)))

    @contextmanager
    def _attentions(self, **watchers: object) -> Iterator[None]:
        """Let the cross-attentions of all layers be watched inside the block."""
        attentions = [layer.encoder_attn for layer in self.decoder.layers]
        try:
            for attention, name in product(attentions, watchers):
                setattr(attention, name, watchers[name])
            yield
        finally:
            for attention, name in product(attentions, watchers):
                setattr(attention, name, None)

    def token_features(
        self, tokens: Tensor, token_lengths: Tensor, states: EncoderStates
    ) -> Tensor:
        """Return the features of tokens before pooling, (B, Ta, D).

        Args:
            tokens: (B, Ta), int64; any padding.
            token_lengths: (B,), int.
            states: Encoder states.
        """
        positions = torch.arange(tokens.size(1), device=tokens.device)
        is_padding = positions >= token_lengths.to(tokens.device)[:, None]
        prefix = self.prefix_ids.expand(len(tokens), -1)
        inputs = torch.cat([prefix, tokens.masked_fill(is_padding, 0)], dim=1)
        return self.decode(inputs, states)[:, prefix.size(1) :]

    def decode(self, inputs: Tensor, states: EncoderStates) -> Tensor:
        """Run the decoder over complete inputs.

        Args:
            inputs: Token ids, (B, L), int64, prefix included.
            states: Encoder states.

        Returns:
            Normalised output at every position, (B, L, D).

        Raises:
            ValueError: If L is more than the decoder has positions, or the batches
                do not agree.
        """
        batch, num_inputs = inputs.shape
        limit = self.decoder.config.max_target_positions
        if num_inputs > limit:
            raise ValueError(
                f"{num_inputs} tokens with the prefix are more than Whisper's {limit} "
                "positions; cut the utterance into shorter ones or exclude it"
            )
        if len(states.keys) != batch:
            raise ValueError(
                f"{batch} rows of tokens but encoder states of {len(states.keys)}"
            )
        table = self.decoder.embed_positions.weight
        hidden = self.decoder.embed_tokens(inputs) + table[:num_inputs]
        if self.embedding_dtype is not None and is_float16(hidden.device):
            hidden = hidden.to(self.embedding_dtype).to(hidden.dtype)
        mask = states.mask[:, None, None]  # (B, 1, 1, T)
        # Layer by layer: the decoder's own forward has no mask for the speech. The
        # layers' self-attention is causal by itself; what stands behind a row's
        # tokens cannot reach them.
        with attention_kernel(hidden.device):
            for layer in self.decoder.layers:
                hidden = layer(
                    hidden,
                    encoder_hidden_states=states,
                    encoder_attention_mask=mask,
                    use_cache=False,
                )
        return self.decoder.layer_norm(hidden)

    @torch.no_grad()
    def attention_maps(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
        states: EncoderStates,
    ) -> Tensor:
        """Return where every token looks; see the contract.

        Returns:
            (B, H, Ta, T), float32, H the heads of all layers, first layer first.
        """
        maps: list[Tensor] = []
        with self._attentions(maps=maps):
            self.token_features(tokens, token_lengths, states)
        return torch.cat(maps, dim=1)[:, :, self.prefix_ids.numel() :]


def build_decoder(config: WhisperConfig) -> WhisperDecoder:
    """Build a Whisper decoder with random weights."""
    config._attn_implementation = "sdpa"
    return WhisperDecoder(config)
