"""Frozen Whisper encoder: keys from its last layer, values from a shallow one.

Symbols: B batch, N samples, T frames (50 a second), D width.

Source: TASTE (arXiv:2504.07053), tokenizer; Whisper (arXiv:2212.04356).
"""

from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from transformers.models.whisper import modeling_whisper

from espnet_taste.layers.attention_kernel import attention_kernel
from espnet_taste.tokenizer.contracts import AbsEncoder
from espnet_taste.tokenizer.log_mel import (
    HOP_SAMPLES,
    log_mel,
    mel_filters,
)
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.tokenizer.whisper import load_whisper, require_sdpa
from espnet_taste.types import SAMPLE_RATE_HZ

__all__ = ["EncoderStates", "WhisperEncoder"]

Samples = TypeVar("Samples", int, Tensor)

FRAME_SAMPLES = 2 * HOP_SAMPLES  # the second convolution halves the rate
NOISE_WINDOWS, NOISE_LEVEL = 4, 0.05  # loudness of quiet speech


class WhisperEncoder(AbsEncoder):
    """Whisper's encoder as a frozen source of keys and values.

    Args:
        model: Whisper weights, name or folder.
        value_layer: The values are the hidden state that enters this layer, not
            normalised; 6 of 32 in the released model.
        window: "full" pads every utterance to Whisper's 30 s, and all of its frames
            are attended (released). "trimmed" encodes the utterance and
            ``trim_pad_s`` of silence only: several times faster on short speech,
            but other numbers than "full". In both, a row of a batch equals the row
            encoded alone up to float32 rounding.
        trim_pad_s: Silence kept behind an utterance in seconds; "trimmed" only.
        value_positions: Leave in the values what tells where in the window a frame
            stands (released). It is more than half of their variance, and TASTE codes
            then say when a word was spoken more than how. False takes off what the
            encoder makes of steady noise, which differs by position alone.

    Raises:
        FileNotFoundError: If the weights cannot be had.
        ValueError: If there is no such layer or window, or ``trim_pad_s`` is negative.
    """

    needs_whisper = True
    frame_rate_hz = SAMPLE_RATE_HZ / FRAME_SAMPLES

    def __init__(
        self,
        model: str = "openai/whisper-tiny.en",
        value_layer: int = 1,
        *,
        window: Literal["full", "trimmed"] = "full",
        trim_pad_s: float = 0.5,
        value_positions: bool = True,
    ):
        super().__init__()
        whisper = load_whisper(model, "encoder")
        self._build(whisper.encoder, value_layer, window, trim_pad_s, value_positions)

    @classmethod
    def from_module(
        cls,
        encoder: modeling_whisper.WhisperEncoder,
        value_layer: int = 1,
        *,
        window: Literal["full", "trimmed"] = "full",
        trim_pad_s: float = 0.5,
        value_positions: bool = True,
    ) -> "WhisperEncoder":
        """Wrap a transformers encoder instead of loading weights by name.

        Args:
            encoder: An encoder whose attention is "sdpa".
            value_layer: As in the constructor.
            window: As in the constructor.
            trim_pad_s: As in the constructor.
            value_positions: As in the constructor.
        """
        wrapper = cls.__new__(cls)
        nn.Module.__init__(wrapper)
        wrapper._build(encoder, value_layer, window, trim_pad_s, value_positions)
        return wrapper

    def _build(
        self,
        encoder: modeling_whisper.WhisperEncoder,
        value_layer: int,
        window: str,
        trim_pad_s: float,
        value_positions: bool,
    ) -> None:
        if not 0 <= value_layer < len(encoder.layers):
            raise ValueError(
                f"value_layer must be in 0..{len(encoder.layers) - 1} for this "
                f"encoder, got {value_layer}"
            )
        if window not in ("full", "trimmed"):
            raise ValueError(f"window must be 'full' or 'trimmed', got {window!r}")
        if trim_pad_s < 0:
            raise ValueError(f"trim_pad_s must be >= 0 seconds, got {trim_pad_s}")
        require_sdpa(encoder)
        self.encoder = encoder
        self.value_layer = value_layer
        self.window = window
        self.trim_pad_s = trim_pad_s
        self.max_frames = encoder.config.max_source_positions
        filters = mel_filters(encoder.config.num_mel_bins)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("value_offset", None, persistent=False)
        self.requires_grad_(False)
        self.eval()
        if not value_positions:
            self.value_offset = self._hear_noise()

    def output_size(self) -> int:
        """Return D."""
        return self.encoder.config.d_model

    def train(self, mode: bool = True) -> "WhisperEncoder":
        """Stay in evaluation mode: the encoder is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, speech: Tensor, speech_lengths: Tensor) -> EncoderStates:
        """Encode speech; see the contract.

        Raises:
            ValueError: If an utterance is longer than Whisper's window.
        """
        lengths = speech_lengths.to(speech.device).long()
        self._check_length(speech, lengths)
        positions = torch.arange(speech.size(1), device=speech.device)
        speech = speech.masked_fill(positions >= lengths[:, None], 0.0)
        if self.window == "full":
            speech = _resize(speech, self.max_frames * FRAME_SAMPLES)
            return self.encode_log_mel(log_mel(speech, self.mel_filters))

        # From the shape, not from the longest length: that one is on the device.
        num_frames = min(max(self._count_frames(speech.size(1)), 1), self.max_frames)
        # A frame of silence more, for the convolutions to look into and the STFT to
        # reflect: what a row ends in may not depend on the longest row.
        speech = _resize(speech, (num_frames + 1) * FRAME_SAMPLES)
        mel = log_mel(speech, self.mel_filters)[:, : 2 * self.max_frames]
        hidden = self._embed(mel)[:, :num_frames]
        frame_lengths = self._count_frames(lengths).clamp(min=1, max=num_frames)
        return self._attend(hidden, frame_lengths)

    @torch.no_grad()
    def encode_log_mel(self, mel: Tensor) -> EncoderStates:
        """Encode log-mel spectrograms, every frame attending to all others.

        Args:
            mel: (B, 2T, bins), float, 100 frames a second.

        Returns:
            States of T frames.
        """
        return self._attend(self._embed(mel))

    def perceive(self, mel: Tensor, lengths: Tensor) -> EncoderStates:
        """Return the states of log-mel spectrograms; gradients reach ``mel``.

        For losses that compare what Whisper hears; the weights stay frozen.

        Args:
            mel: (B, 2T, bins), float, 100 frames a second; any finite padding.
            lengths: Frames of the states, (B,), int64, 1..T.

        Returns:
            Keys and values of T frames; zeros on padding.
        """
        positions = torch.arange(mel.size(1), device=mel.device)
        is_padding = positions >= 2 * lengths[:, None]
        mel = mel.masked_fill(is_padding[..., None], 0.0)
        return self._attend(self._embed(mel), lengths)

    def _embed(self, mel: Tensor) -> Tensor:
        """Run the convolutions and add the positions, (B, 2T, bins) -> (B, T, D)."""
        hidden = nn.functional.gelu(self.encoder.conv1(mel.transpose(1, 2)))
        hidden = nn.functional.gelu(self.encoder.conv2(hidden)).transpose(1, 2)
        return hidden + self.encoder.embed_positions.weight[: hidden.size(1)]

    def _attend(self, hidden: Tensor, lengths: Tensor | None = None) -> EncoderStates:
        """Run the layers; with lengths, nothing behind them is attended or left."""
        batch, num_frames, _ = hidden.shape
        mask = None
        if lengths is not None:
            positions = torch.arange(num_frames, device=hidden.device)
            mask = positions < lengths[:, None]
        values = hidden
        # The layers one by one: transformers' own forward takes no mask and would
        # keep the hidden states of all layers to hand out one.
        attended = None if mask is None else mask[:, None, None]
        with attention_kernel(hidden.device):
            for number, layer in enumerate(self.encoder.layers):
                if number == self.value_layer:
                    values = hidden
                hidden = layer(hidden, attended)
        if self.value_offset is not None:
            values = values - self.value_offset[:num_frames]
        keys = self.encoder.layer_norm(hidden)
        if mask is None:
            lengths = torch.full((batch,), num_frames, device=hidden.device)
            return EncoderStates(keys, values, lengths)
        is_padding = ~mask[..., None]
        return EncoderStates(
            keys.masked_fill(is_padding, 0.0),
            values.masked_fill(is_padding, 0.0),
            lengths,
        )

    @torch.no_grad()
    def _hear_noise(self) -> Tensor:
        """Return the mean values of some windows of white noise, (max_frames, D).

        Taking off the position embedding itself does not do: the first layer has
        already cancelled a part of it (explained variance 0.57 before, 0.83 behind
        that, 0.02 behind this; Whisper tiny.en, layer 1).
        """
        source = torch.Generator().manual_seed(0)
        size = (NOISE_WINDOWS, self.max_frames * FRAME_SAMPLES)
        noise = NOISE_LEVEL * torch.randn(size, generator=source)
        mel = log_mel(noise.to(self.mel_filters), self.mel_filters)
        hidden = self._embed(mel)
        for layer in self.encoder.layers[: self.value_layer]:
            hidden = layer(hidden, None)
        return hidden.mean(0)

    def _count_frames(self, num_samples: Samples) -> Samples:
        """Return the frames that begun samples and the silence behind them take."""
        padded = num_samples + round(self.trim_pad_s * SAMPLE_RATE_HZ)
        return -(-padded // FRAME_SAMPLES)

    def _check_length(self, speech: Tensor, lengths: Tensor) -> None:
        limit = self.max_frames * FRAME_SAMPLES
        if speech.size(1) <= limit:
            return
        longest = int(lengths.max())
        if longest > limit:
            raise ValueError(
                f"an utterance of {longest / SAMPLE_RATE_HZ:.2f} s is longer than "
                f"Whisper's window of {limit / SAMPLE_RATE_HZ:.2f} s; cut it into "
                "shorter ones or exclude it"
            )


def _resize(speech: Tensor, num_samples: int) -> Tensor:
    """Pad with zeros or cut to a number of samples."""
    return nn.functional.pad(speech, (0, num_samples - speech.size(1)))
