"""The speech tokenizer: encoder, aggregator and quantizer in a row.

Symbols: B batch, N samples, Ta ASR tokens, W words, D width, Q codebooks.

Source: TASTE (arXiv:2504.07053), tokenizer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from espnet_taste.tokenizer.contracts import AbsAggregator, AbsEncoder, AbsQuantizer
from espnet_taste.tokenizer.states import EncoderStates


@dataclass(frozen=True)
class TokenizerOutput:
    """What the tokenizer makes of a batch of utterances."""

    embeds: Tensor  # (B, Ta, D) TASTE embeddings, the decoder's input
    # (B, Ta, Q) int64, IGNORE on padding; None if not quantized. One row a word:
    # layers.word_pooling.first_of_words.
    codes: Tensor | None
    commitment: Tensor  # (Q,) losses; 0 in eval mode
    features: Tensor  # (B, Ta, D) before the quantizer; zeros on padding


class SpeechTokenizer(nn.Module):
    """Turn speech and its transcript into codes and embeddings, one a word.

    Args:
        encoder: Frozen speech encoder; None if only cached states are encoded.
        aggregator: Cross-attention from tokens to speech.
        quantizer: Residual quantizer or ``NoQuantizer``.
    """

    def __init__(
        self,
        encoder: AbsEncoder | None,
        aggregator: AbsAggregator,
        quantizer: AbsQuantizer,
    ):
        super().__init__()
        self.encoder = encoder
        self.aggregator = aggregator
        self.quantizer = quantizer

    def encode_speech(self, speech: Tensor, speech_lengths: Tensor) -> EncoderStates:
        """Run the encoder alone, e.g. to cache its states.

        Args:
            speech: (B, N), float32, 16 kHz.
            speech_lengths: (B,), int.

        Raises:
            ValueError: If the tokenizer was built without encoder.
        """
        if self.encoder is None:
            raise ValueError("this tokenizer has no encoder; give it cached states")
        return self.encoder(speech, speech_lengths)

    def forward(
        self,
        states: EncoderStates,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
    ) -> TokenizerOutput:
        """Tokenize utterances.

        Args:
            states: What ``encode_speech`` returned for them.
            tokens: ASR tokens, (B, Ta), int64; any padding.
            token_lengths: (B,), int.
            words: Word index of every token, (B, Ta), int; any padding.

        Returns:
            Embeddings, codes, commitment losses and features per token.
        """
        features = self.aggregator(tokens, token_lengths, words, states)
        positions = torch.arange(tokens.size(1), device=tokens.device)
        mask = positions < token_lengths.to(tokens.device)[:, None]
        output = self.quantizer(features, mask)
        return TokenizerOutput(
            output.quantized, output.codes, output.commitment, features
        )

    @torch.no_grad()
    def encode(
        self,
        speech: Tensor | EncoderStates,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
        speech_lengths: Tensor | None = None,
    ) -> TokenizerOutput:
        """Tokenize utterances without gradients.

        Args:
            speech: Waveforms (B, N), float32, 16 kHz, or cached encoder states.
            tokens: As in ``forward``.
            token_lengths: As in ``forward``.
            words: As in ``forward``.
            speech_lengths: Samples per row, (B,), int; None if all N are valid.

        Returns:
            As ``forward``.
        """
        if isinstance(speech, Tensor):
            if speech_lengths is None:
                speech_lengths = torch.full((len(speech),), speech.size(1))
            speech = self.encode_speech(speech, speech_lengths)
        return self(speech, tokens, token_lengths, words)
