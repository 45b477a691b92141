"""Batches for unit-to-mel training: crops of one length, so that nothing is padded.

Symbols: B rows, S units, M mel frames, C mel channels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from espnet_taste.data.collate import Item, pad_arrays

# Level that every target is brought to: root mean square of the mel magnitudes in
# nepers, a usual one for read speech. Units do not tell how loud a speaker was.
TARGET_LEVEL = -2.6
LOG_FLOOR = float(np.log(1e-5))


def level_mel(mel: np.ndarray) -> np.ndarray:
    """Bring log-mel frames to the common level, (M, C), float32."""
    mel = mel.astype(np.float32)
    level = 0.5 * np.log(np.mean(np.exp(2.0 * mel)))
    return np.maximum(mel + (TARGET_LEVEL - level), LOG_FLOOR)


class UnitMelPreprocessor:
    """Check and prepare one utterance.

    Args:
        units_per_frame: Units per mel frame.
        num_units: Number of unit classes.
    """

    def __init__(self, units_per_frame: float, num_units: int):
        self.units_per_frame = units_per_frame
        self.num_units = num_units

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Cast the units and level the mel frames.

        Args:
            uid: Utterance id, for messages.
            data: ``units`` (S,), ``mel`` (M, C) and ``spembs``.

        Raises:
            ValueError: If units and mel cannot be of the same audio, or a unit is
                out of range; the utterance is named.
        """
        units = np.asarray(data["units"]).astype(np.int64)
        if units.min() < 0 or units.max() >= self.num_units:
            raise ValueError(
                f"utterance '{uid}' has units {units.min()}..{units.max()}, expected "
                f"0..{self.num_units - 1}; is this the right units folder?"
            )
        mel = fit_mel(uid, np.asarray(data["mel"]), len(units), self.units_per_frame)
        return {**data, "units": units, "mel": mel}


def fit_mel(
    uid: str, mel: np.ndarray, num_units: int, units_per_frame: float
) -> np.ndarray:
    """Check that mel frames belong to units, cut and level them, (M, C) float32.

    Raises:
        ValueError: If units and mel cannot be of the same audio; it is named.
    """
    covered = num_units / units_per_frame
    # The ends differ by what makes no whole unit or frame.
    if abs(len(mel) - covered) > 4 + 2 / units_per_frame:
        raise ValueError(
            f"utterance '{uid}' has {len(mel)} mel frames, its {num_units} units "
            f"cover {covered:.0f}; extract units and mel from the same audio"
        )
    return level_mel(mel[: max(1, int(covered))])


class StateMelPreprocessor:
    """Check and prepare one utterance for learning units.

    Args:
        frames_per_mel: Encoder frames per mel frame.
        centre: Normalises the states of one utterance, (T, E) -> (T, E).
    """

    def __init__(self, frames_per_mel: float, centre: Callable[[Tensor], Tensor]):
        self.frames_per_mel = frames_per_mel
        self.centre = centre

    def __call__(self, uid: str, data: dict) -> dict[str, np.ndarray]:
        """Cut the silence behind the states off, normalise them, level the mel.

        Args:
            uid: Utterance id, for messages.
            data: ``encoder_states`` (T, E), ``mel`` (M, C) and ``spembs``.

        Raises:
            ValueError: If states and mel cannot be of the same audio.
        """
        mel = np.asarray(data["mel"])
        states = torch.from_numpy(np.array(data["encoder_states"], np.float32))
        states = states[: max(1, round(len(mel) * self.frames_per_mel))]
        mel = fit_mel(uid, mel, len(states), self.frames_per_mel)
        return {**data, "encoder_states": self.centre(states).numpy(), "mel": mel}


class MelCropCollate:
    """Cut utterances into crops in training; pad whole ones in validation.

    Every utterance gives about as many crops as it is long, spread over it, so that
    an epoch hears everything once whatever the lengths.

    Args:
        units_per_frame: Steps of the stream per mel frame.
        crop_units: Steps a crop; None for whole utterances.
        stream: Name of the array that is cut beside ``mel``: units, or the encoder
            states that units are learned from.
        multiple: Crops begin at multiples of so many steps.
    """

    def __init__(
        self,
        units_per_frame: float,
        crop_units: int | None = None,
        *,
        stream: str = "units",
        multiple: int = 1,
    ):
        self.units_per_frame = units_per_frame
        self.crop_units = crop_units
        self.stream = stream
        self.multiple = multiple

    def __call__(self, items: Sequence[Item]) -> tuple[list[str], dict[str, Tensor]]:
        """Make a batch.

        Args:
            items: Utterance id and arrays of ``UnitMelPreprocessor``.

        Returns:
            Ids, and the stream (B, S, ...), ``mel`` (B, M, C), their ``_lengths``,
            ``spembs`` (B, D), and ``frame_offset`` (B,) as ``UnitToMel`` takes it.
        """
        rng = np.random.default_rng(np.random.randint(2**31))
        rows, offsets = [], []
        for uid, data in items:
            for start in self._starts(len(data[self.stream]), rng):
                row, offset = self._crop(data, start)
                rows.append((uid, row))
                offsets.append(offset)
        batch = pad_arrays(rows)
        batch["frame_offset"] = torch.tensor(offsets, dtype=torch.float32)
        return [uid for uid, _ in rows], batch

    def _starts(self, num_units: int, rng: np.random.Generator) -> np.ndarray:
        if self.crop_units is None or num_units <= self.crop_units:
            return np.zeros(1, np.int64)
        count = max(1, round(num_units / self.crop_units))
        places = (np.arange(count) + rng.random(count)) / count
        starts = (places * (num_units - self.crop_units + 1)).astype(np.int64)
        return starts // self.multiple * self.multiple

    def _crop(self, data: dict, start: int) -> tuple[dict[str, np.ndarray], float]:
        size = self.crop_units or len(data[self.stream])
        units = data[self.stream][start : start + size]
        # Units and frames have no common grid: take the first whole frame inside and
        # say where it lies, or every crop would be off by up to a frame.
        begin = start / self.units_per_frame
        first = int(np.ceil(begin))
        stop = int((start + len(units)) / self.units_per_frame)
        mel = data["mel"][first : max(stop, first + 1)]
        if len(mel) == 0:  # a last unit may reach over the end of the frames
            first = len(data["mel"]) - 1
            mel = data["mel"][first:]
        return {**data, self.stream: units, "mel": mel}, first - begin
