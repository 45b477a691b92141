"""Whatever a caller has as audio, as one channel at 16 kHz."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import soundfile
from torch import Tensor

from espnet_taste.data.audio import AudioError, prepare_samples, read_audio
from espnet_taste.types import SAMPLE_RATE_HZ

# A path, an open file, samples, or what Hugging Face datasets hold: a mapping with
# ``array`` and ``sampling_rate``.
Audio = str | PathLike | BinaryIO | np.ndarray | Tensor | Mapping[str, Any]


def is_many(audio: Any) -> bool:
    """Tell a list of recordings from one recording."""
    return isinstance(audio, Sequence) and not isinstance(audio, (str, bytes))


def match_texts(text: Any, count: int | None) -> list[str | None]:
    """Return a text, or None, for each of some recordings.

    Args:
        text: A text, a list of texts and None, or None for all.
        count: Number of the recordings; None for one that is no list.

    Raises:
        TypeError: If something is no text, or one is a list and the other is not.
        ValueError: If there are more or fewer texts than recordings.
    """
    if text is None:
        return [None] * (1 if count is None else count)
    if count is None:
        if isinstance(text, str):
            return [text]
        raise TypeError(
            f"the text of one recording is a {type(text).__name__}; give a string, or "
            "a list of recordings with a list of texts"
        )
    if isinstance(text, str) or not isinstance(text, Iterable):
        raise TypeError(
            f"the texts of {count} recordings are a {type(text).__name__}; give a "
            "list, with None where the transcript is to be written"
        )
    texts = list(text)
    for place, item in enumerate(texts):
        if item is not None and not isinstance(item, str):
            raise TypeError(
                f"recording {place}: its text is a {type(item).__name__}; give a "
                "string, or None to have it written"
            )
    if len(texts) != count:
        raise ValueError(f"{count} recordings, but {len(texts)} texts")
    return texts


def read_any(
    audio: Audio, sample_rate_hz: int = SAMPLE_RATE_HZ, where: str = "the audio"
) -> np.ndarray:
    """Bring audio to one channel at 16 kHz.

    Args:
        audio: A path; an open binary file; an array or tensor, (N,) or with channels
            along its shorter axis; a mapping with ``array`` and ``sampling_rate``.
        sample_rate_hz: Rate of an array or tensor, in Hz; files know theirs.
        where: What it is called in messages.

    Returns:
        Samples, (N,), float32, N > 0, finite.

    Raises:
        AudioError: If it cannot be used; it says why.
        TypeError: If it is none of these.
    """
    if isinstance(audio, (str, PathLike)):
        return read_audio(str(audio))
    if isinstance(audio, Mapping):
        if missing := {"array", "sampling_rate"} - audio.keys():
            raise TypeError(f"{where} is a mapping without {sorted(missing)}")
        return read_any(audio["array"], audio["sampling_rate"], where)
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu().numpy()
    if isinstance(audio, np.ndarray):
        return prepare_samples(audio, sample_rate_hz, where)
    if hasattr(audio, "read"):
        try:
            samples, rate = soundfile.read(audio, dtype="float32")
        except soundfile.SoundFileError as error:
            raise AudioError("unreadable", f"{where}: {error}") from error
        return prepare_samples(samples, rate, where)
    raise TypeError(
        f"{where} is a {type(audio).__name__}; expected a path, open file, array, "
        "tensor or a mapping with array and sampling_rate"
    )
