"""What encoder, aggregator and quantizer must offer to be chosen in YAML.

A class that keeps these promises can stand in for ours: put it into the
registry (``espnet_taste.register``) and name it in the configuration.

Symbols: B batch, N samples, T encoder frames, Ta ASR tokens, D width, Q
codebooks, K codebook size, d codebook width.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from espnet_taste.layers.attention_guide import SpeechGuide
from espnet_taste.layers.residual_vq import QuantizerOutput
from espnet_taste.tokenizer.states import EncoderStates


class AbsEncoder(nn.Module, ABC):
    """Frozen speech encoder: waveforms to two streams of frames.

    Implementations keep their weights out of training themselves: no parameter
    requires a gradient and ``train()`` leaves them in evaluation mode.
    """

    # True: the task hands the name of its Whisper weights in as ``model``.
    needs_whisper = False
    frame_rate_hz: float

    @abstractmethod
    def output_size(self) -> int:
        """Return D."""

    @abstractmethod
    def forward(self, speech: Tensor, speech_lengths: Tensor) -> EncoderStates:
        """Encode speech.

        Row i does not depend on the other rows nor on what stands behind its
        length.

        Args:
            speech: (B, N), float32, 16 kHz, -1..1; any padding.
            speech_lengths: Samples per row, (B,), int.

        Returns:
            Keys and values of the aggregator's cross-attention.

        Raises:
            ValueError: If an utterance is longer than the encoder can take.
        """


class AbsAggregator(nn.Module, ABC):
    """Cross-attention from text tokens to speech: one feature vector a token."""

    needs_whisper = False
    max_tokens: int | None = None  # of a transcript, if there is a limit
    # Submodules that are never trained and need not be in checkpoints.
    frozen_parts: tuple[str, ...] = ()

    @abstractmethod
    def output_size(self) -> int:
        """Return D."""

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
        states: EncoderStates,
        guide: SpeechGuide | None = None,
    ) -> Tensor:
        """Gather the speech behind every token.

        Args:
            tokens: ASR tokens, (B, Ta), int64; any padding.
            token_lengths: Valid tokens per row, (B,), int.
            words: Word index of every token, (B, Ta), int; any padding.
            states: Encoder states of the same utterances.
            guide: What watches attention in training, from ``guide``.

        Returns:
            Features, (B, Ta, D), equal on all tokens of a word; zeros on padding.
        """

    def guide(self, token_times: Tensor, states: EncoderStates) -> SpeechGuide | None:
        """Return what teaches attention where words are; None if nothing can.

        Args:
            token_times: Start and end of every token's word, (B, Ta, 2), float, s.
            states: Encoder states of the same utterances.
        """
        return None

    @abstractmethod
    def attention_maps(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        words: Tensor,
        states: EncoderStates,
    ) -> Tensor:
        """Return where every token looks, (B, H, Ta, T); rows sum to 1."""


class AbsQuantizer(nn.Module, ABC):
    """Discrete bottleneck between aggregator and decoder."""

    num_codebooks: int  # Q; 0 if there is no bottleneck
    codebook_size: int  # K
    codebook_dim: int  # d

    def initialise(
        self, features: Tensor, *, generator: torch.Generator, num_iterations: int = 100
    ) -> None:
        """Start from training data, before the first step of the quantizer's training.

        Whatever learns from its first step on may leave this as it is: it does nothing.

        Args:
            features: One feature a word of training data, (N, D), float.
            generator: CPU generator of whatever is drawn.
            num_iterations: Iterations of k-means, if that is what it does.
        """

    @abstractmethod
    def forward(self, features: Tensor, mask: Tensor) -> QuantizerOutput:
        """Quantize features.

        Args:
            features: (B, Ta, D), float.
            mask: True on valid tokens, (B, Ta), bool.

        Returns:
            Embeddings of width D, codes (None without bottleneck) and the
            commitment loss of every codebook.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return the TASTE embeddings of codes, (..., Q) -> (..., D)."""

    @abstractmethod
    def sum_codes(self, codes: Tensor) -> Tensor:
        """Add the entries of codes, (..., Q) -> (..., d); IGNORE adds nothing."""

    @abstractmethod
    def quantize_latent(self, latent: Tensor) -> Tensor:
        """Code vectors of codebook space, (..., d) -> (..., Q)."""

    @abstractmethod
    def statistics(self, output: QuantizerOutput) -> dict[str, Tensor]:
        """Return what a training log should show of a step, name to 0-dim."""
