"""What a unit decoder and a vocoder must offer to be chosen in YAML.

A decoder that keeps these promises can stand in for ours: put it into the registry
(``espnet_taste.register``) and name it in the configuration.

Symbols: U utterances, Ta tokens, S units, C classes, (P, L) positions of a layout.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from espnet_taste.decoder.layout import UnitLMLayout
from espnet_taste.sampling import RandomSource


@dataclass(frozen=True)
class UnitSampling:
    """How units are drawn, and how many there may be.

    A unit rate other than the released 50 a second needs ``bounds="tokens"``, which
    counts in seconds.

    Raises:
        ValueError: If a setting is out of its range.
    """

    top_k: int = 25  # draw among the k best; 1 takes the best
    temperature: float = 1.0
    # "prompt", released: 2 to 20 times the prompt length 3 + Ta. "tokens": seconds a
    # token, in units of ``unit_rate_hz``.
    bounds: Literal["prompt", "tokens"] = "prompt"
    unit_rate_hz: float = 50.0  # read by bounds="tokens" only
    # 99 % of 1818 read utterances have 0.15 to 0.76 seconds a token.
    min_token_s: float = 0.08  # least seconds a token
    max_token_s: float = 0.6  # most seconds a token ...
    extra_s: float = 1.0  # ... and this much more for the silence around them
    check_every: int = 16  # steps between two looks whether all rows have ended

    def __post_init__(self) -> None:
        """Check the values that come from a YAML file."""
        if self.bounds not in ("prompt", "tokens"):
            raise ValueError(
                f"bounds must be 'prompt' or 'tokens', got {self.bounds!r}"
            )
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        for name in ("temperature", "unit_rate_hz", "check_every"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not 0 <= self.min_token_s <= self.max_token_s or self.extra_s < 0:
            raise ValueError(
                "unit bounds need 0 <= min_token_s <= max_token_s and extra_s >= 0, "
                f"got {self.min_token_s}, {self.max_token_s} and {self.extra_s}"
            )


@dataclass(frozen=True)
class GeneratedUnits:
    """Units of a batch of utterances."""

    units: Tensor  # (U, S) int64, IGNORE behind each row's length
    lengths: Tensor  # (U,) int64
    has_ended: Tensor  # (U,) bool; False: cut off at its upper bound


class AbsUnitDecoder(nn.Module, ABC):
    """Autoregressive model of speech units, given text, TASTE and a speaker."""

    num_units: int
    speaker_dim: int | None = None  # width of speaker embeddings, if it is fixed
    # Submodules that are never trained and need not be in checkpoints.
    frozen_parts: tuple[str, ...] = ()

    @abstractmethod
    def forward(
        self,
        tokens: Tensor,
        taste: Tensor | None,
        speaker: Tensor,
        layout: UnitLMLayout,
    ) -> Tensor:
        """Predict units, teacher-forced.

        A row's logits depend on this row alone, however rows are laid out.

        Args:
            tokens: Text tokens, (U, Ta), int64; any padding.
            taste: TASTE embeddings of the tokens, (U, Ta, taste_dim), float; None
                for text alone.
            speaker: Speaker embeddings, (U, speaker_dim), float.
            layout: What stands where.

        Returns:
            Logits, (P, L, C) with C = num_units + 1; class ``num_units`` is the end.
        """

    @abstractmethod
    def generate(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        taste: Tensor | None,
        speaker: Tensor,
        *,
        sampling: UnitSampling | None = None,
        source: RandomSource = None,
    ) -> GeneratedUnits:
        """Draw the units of whole utterances.

        Args:
            tokens: Text tokens, (U, Ta), int64; any padding.
            token_lengths: (U,), int64.
            taste: As in ``forward``.
            speaker: As in ``forward``.
            sampling: How to draw; None for the released settings.
            source: Source of randomness, on the device of the model.

        Returns:
            The units; never more than the bounds allow.
        """

    def start_units(self, vectors: Tensor) -> None:
        """Start what is learned of every unit from vectors instead of at random.

        Args:
            vectors: One a unit, close where units sound alike, (num_units, V), float.

        Raises:
            ValueError: If this decoder cannot, or the vectors do not fit.
        """
        raise ValueError(
            f"{type(self).__name__} cannot start from unit vectors; set unit_start: "
            "random"
        )


class AbsVocoder(nn.Module, ABC):
    """Turn units into waveforms; frozen, and in eval mode whatever happens.

    A row's waveform does not depend on the other rows or on padding.
    """

    def __init__(self) -> None:
        super().__init__()

    @property
    @abstractmethod
    def sample_rate_hz(self) -> int:
        """Rate of the waveforms."""

    @abstractmethod
    def forward(
        self, units: Tensor, unit_lengths: Tensor, speaker: Tensor
    ) -> list[Tensor]:
        """Synthesise.

        Args:
            units: (B, S), int64; anything on padding.
            unit_lengths: Valid units, (B,), int64; 0 gives an empty waveform.
            speaker: Speaker embeddings, (B, speaker_dim), float.

        Returns:
            One waveform a row, each (N,), float32, -1..1.

        Raises:
            ValueError: If a unit is none of those the vocoder was trained on.
        """

    def train(self, mode: bool = True) -> "AbsVocoder":
        """Stay in eval mode: a vocoder with dropout on has been released before."""
        return super().train(False)

    @staticmethod
    def _require_units(units: Tensor, lengths: Tensor, num_units: int) -> None:
        """Refuse units, (B, S), outside 0..num_units - 1; padding may be anything."""
        steps = torch.arange(units.size(1), device=units.device)
        is_foreign = (units < 0) | (units >= num_units)
        foreign = units[is_foreign & (steps < lengths[:, None])]
        if len(foreign):
            raise ValueError(
                f"the vocoder has units 0..{num_units - 1}, got {int(foreign[0])}; "
                "were they made by another extractor than those it was trained on?"
            )

    def _speak(self, units: Tensor, lengths: Tensor, speaker: Tensor) -> list[Tensor]:
        """Synthesise the rows that have units by ``_synthesise``; others are empty."""
        speech = [speaker.new_zeros(0, dtype=torch.float32)] * len(units)
        spoken = (lengths > 0).nonzero()[:, 0]
        if len(spoken):
            counts = lengths[spoken]
            filled = units[spoken, : int(counts.max())]
            rows = self._synthesise(filled, counts, speaker[spoken])
            for index, row in zip(spoken.tolist(), rows, strict=True):
                speech[index] = row
        return speech

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()
