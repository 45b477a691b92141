"""Whatever a caller has as audio, as one channel at 16 kHz."""

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch
from torch import Tensor

from espnet_taste.data.audio import (
    AudioError,
    prepare_samples,
    read_audio,
    read_sound,
)
from espnet_taste.types import SAMPLE_RATE_HZ

# A path, an open file, samples, or what Hugging Face datasets hold: a mapping with
# ``array`` and ``sampling_rate`` or ``bytes`` and ``path``; also torchcodec's decoder.
Audio = str | PathLike | BinaryIO | np.ndarray | Tensor | Mapping[str, Any]


def is_many(audio: Any) -> bool:
    """Tell a list of recordings from one recording.

    Raises:
        TypeError: If it is a list of numbers.
    """
    is_list = isinstance(audio, Sequence) and not isinstance(audio, (str, bytes))
    if is_list and len(audio) > 0 and isinstance(audio[0], Number):
        raise TypeError(
            "the recording is a list of numbers; give an array (numpy.asarray), and "
            "its rate as sample_rate_hz"
        )
    return is_list


def slices(count: int, batch_size: int) -> list[slice]:
    """Divide items over batches.

    Raises:
        ValueError: If a batch is to hold less than one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return [slice(start, start + batch_size) for start in range(0, count, batch_size)]


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
    audio: Audio, sample_rate_hz: float = SAMPLE_RATE_HZ, where: str = "the audio"
) -> np.ndarray:
    """Bring audio to one channel at 16 kHz.

    Args:
        audio: A path; an open binary file, read from where it stands; an array or
            tensor, (N,) or with channels along its shorter axis; an item of a Hugging
            Face dataset: a mapping with ``array`` and ``sampling_rate``, one with
            ``bytes`` or ``path`` (``Audio(decode=False)``), or torchcodec's
            ``AudioDecoder``.
        sample_rate_hz: Rate of an array or tensor, in Hz; files know theirs.
        where: What it is called in messages.

    Returns:
        Samples, (N,), float32, N > 0, finite.

    Raises:
        AudioError: If it cannot be used; it says why.
        TypeError: If it is none of these.
    """
    if isinstance(audio, (str, PathLike)):
        return read_audio(os.fspath(audio))
    if isinstance(audio, Mapping):
        return _read_mapping(audio, where)
    if hasattr(audio, "get_all_samples"):
        decoded = audio.get_all_samples()
        return read_any(decoded.data, decoded.sample_rate, where)
    if isinstance(audio, Tensor):
        audio = audio.detach().cpu()
        # numpy has no bfloat16.
        audio = (audio.float() if audio.dtype == torch.bfloat16 else audio).numpy()
    if isinstance(audio, np.ndarray):
        return prepare_samples(audio, sample_rate_hz, where)
    if hasattr(audio, "read"):
        return _read_stream(audio, where)
    hint = "; the rate of an array is sample_rate_hz" * isinstance(audio, Number)
    raise TypeError(
        f"{where} is a {type(audio).__name__}; expected a path, open file, array, "
        f"tensor or a mapping with array and sampling_rate{hint}"
    )


def read_named(audio: Audio, sample_rate_hz: float, name: str) -> np.ndarray:
    """Read a recording to encode; see ``read_any``.

    Raises:
        AudioError: If it cannot be used or is silent; it names the recording once.
        TypeError: If it is no audio.
    """
    try:
        wave = read_any(audio, sample_rate_hz, name)
    except AudioError as error:
        if name in error.detail:
            raise
        raise AudioError(error.reason, f"{name}: {error.detail}") from error
    if not wave.any():
        raise AudioError("silent", f"{name} is silent, every sample is 0; leave it out")
    return wave


def _read_mapping(audio: Mapping[str, Any], where: str) -> np.ndarray:
    missing = {"array", "sampling_rate"} - audio.keys()
    if not missing:
        return read_any(audio["array"], audio["sampling_rate"], where)
    if audio.get("bytes") is not None:
        return _read_stream(io.BytesIO(audio["bytes"]), where)
    if audio.get("path") is not None:
        return read_audio(os.fspath(audio["path"]))
    raise TypeError(
        f"{where} is a mapping without {sorted(missing)}; of a row of a dataset give "
        "the column with the audio"
    )


def _read_stream(stream: Any, where: str) -> np.ndarray:
    """Read an open file to its end; soundfile itself reports a bad one to stderr."""
    try:
        content = stream.read()
    except ValueError as error:
        raise AudioError("unreadable", f"{where}: {error}; open it again") from error
    if isinstance(content, str):
        raise TypeError(f"{where} is a file opened as text; open it in mode 'rb'")
    if not content:
        raise AudioError("empty", f"{where} is a file at its end; seek(0) first")
    try:
        samples, rate = read_sound(io.BytesIO(content), where)
    except soundfile.SoundFileError as error:
        detail = getattr(error, "error_string", error)
        raise AudioError("unreadable", f"{where}: {detail}") from error
    return prepare_samples(samples, rate, where)
