"""How different two mel spectrograms sound to a frozen Whisper encoder.

A regression of mel frames is content with their average, which sounds muffled: what
tells one consonant from another is a small part of its error. The distance between
the states that Whisper derives from both spectrograms weighs the same errors by what
they do to the words.

Symbols: B batch, M mel frames, C mel channels, T Whisper frames.

Source: perceptual loss (arXiv:1603.08155) with the encoder of Whisper
(arXiv:2212.04356); not part of TASTE, whose units come with a vocoder.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from espnet_taste.decoder.mel import LogMel, MelConfig, resample
from espnet_taste.decoder.unit_to_mel import step_mask
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.log_mel import HOP_SAMPLES, log_mel
from espnet_taste.types import SAMPLE_RATE_HZ

# log10 of a power is so many times the natural logarithm of its magnitude.
DECADES_PER_NEPER = 2 / math.log(10)
# Whisper looks no deeper than 80 dB under the loudest bin; its scale is (x + 4) / 4.
WHISPER_DEPTH = 8.0
WHISPER_SHIFT = 4.0
CALIBRATION_S = 10


class WhisperPerception(nn.Module):
    """Squared distance of Whisper's states; frozen, gradients pass through.

    Args:
        encoder: Frozen encoder; its last states are compared.
        config: The mel frames that are compared; as many channels as Whisper's.
        with_values: Compare the states of its value layer, too, each normalised over
            its channels as the last ones are. They know more of the sound and cost
            nothing: the last ones are made of them.

    Raises:
        ValueError: If the numbers of channels differ.
    """

    def __init__(
        self,
        encoder: WhisperEncoder,
        config: MelConfig = MelConfig(),
        *,
        with_values: bool = False,
    ):
        super().__init__()
        self.with_values = with_values
        num_bins = encoder.mel_filters.size(1)
        if num_bins != config.num_mels:
            raise ValueError(
                f"this Whisper hears {num_bins} mel channels, the vocoder's frames "
                f"have {config.num_mels}; give perceptual_whisper a model with as many"
            )
        self.encoder = encoder
        self.steps_per_frame = config.frame_rate_hz * HOP_SAMPLES / SAMPLE_RATE_HZ
        offset = whisper_offset(config, encoder.mel_filters)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, predicted: Tensor, mel: Tensor, lengths: Tensor) -> Tensor:
        """Compare.

        Args:
            predicted: Log-mel frames, (B, M, C), float; any padding.
            mel: The true ones, (B, M, C), float; any padding.
            lengths: Valid frames, (B,), int64, at least 1.

        Returns:
            Mean squared distance over valid frames and channels, with values the sum
            of both, (), float32.
        """
        size = int(self._count_states(torch.tensor(mel.size(1))))
        num_states = self._count_states(lengths).clamp(max=size)
        with torch.no_grad():
            true_mel = self._on_whisper_grid(mel.float(), lengths, size)
            positions = torch.arange(2 * size, device=mel.device)
            is_padding = positions >= 2 * num_states[:, None]
            audible = true_mel.masked_fill(is_padding[..., None], -math.inf)
            floor = audible.amax(dim=(1, 2), keepdim=True) - WHISPER_DEPTH
            wanted = self._hear(true_mel, floor, num_states)
        own_mel = self._on_whisper_grid(predicted.float(), lengths, size)
        heard = self._hear(own_mel, floor, num_states)
        mask = step_mask(num_states, size)
        pairs = zip(heard, wanted, strict=True)
        error = sum((own - true).square().mean(-1, keepdim=True) for own, true in pairs)
        return (error * mask).sum() / mask.sum()

    def _hear(self, mel: Tensor, floor: Tensor, num_states: Tensor) -> list[Tensor]:
        scaled = (torch.maximum(mel, floor) + WHISPER_SHIFT) / WHISPER_SHIFT
        states = self.encoder.perceive(scaled, num_states)
        if not self.with_values:
            return [states.keys.float()]
        values = states.values.float()
        return [states.keys.float(), layer_norm(values, values.shape[-1:])]

    def _count_states(self, lengths: Tensor) -> Tensor:
        """Return the states that mel frames cover: two steps of 10 ms each."""
        steps = ((lengths - 1) / self.steps_per_frame).long() + 1
        return (steps // 2).clamp(1, self.encoder.max_frames)

    def _on_whisper_grid(self, mel: Tensor, lengths: Tensor, size: int) -> Tensor:
        """Interpolate to 100 frames a second and to decades, (B, 2 * size, C)."""
        steps = torch.arange(2 * size, device=mel.device) * self.steps_per_frame
        place = torch.minimum(steps[None], (lengths - 1)[:, None].to(steps.dtype))
        left = place.long()
        right = torch.minimum(left + 1, (lengths - 1)[:, None])
        share = (place - left)[..., None]
        rows = torch.arange(len(mel), device=mel.device)[:, None]
        between = mel[rows, left] * (1 - share) + mel[rows, right] * share
        return between * DECADES_PER_NEPER + self.offset


def whisper_offset(config: MelConfig, filters: Tensor) -> Tensor:
    """Return what to add to magnitudes in decades for Whisper's power in them.

    Filters, windows and rates differ; measured on noise, where it is the same at all
    times. On speech it is off by some 2 dB, which both spectrograms share.

    Args:
        config: The vocoder's mel frames.
        filters: Whisper's, ``mel_filters``.

    Returns:
        (C,), float32.
    """
    source = torch.Generator().manual_seed(0)
    rate = config.sample_rate_hz
    noise = torch.randn(1, CALIBRATION_S * rate, generator=source)
    magnitude = LogMel(config)(noise)[0] * DECADES_PER_NEPER
    at_whisper_rate = resample(noise, rate, SAMPLE_RATE_HZ)
    whole = at_whisper_rate.size(1) // HOP_SAMPLES * HOP_SAMPLES
    scaled = log_mel(at_whisper_rate[:, :whole], filters.cpu())[0]
    power = scaled * WHISPER_SHIFT - WHISPER_SHIFT
    return power.mean(0) - magnitude.mean(0)
