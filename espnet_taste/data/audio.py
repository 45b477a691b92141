"""Read one utterance's audio from a path, an ark or a part of a recording.

Everything becomes float32, one channel, one rate. Resampling is soxr's "HQ" setting,
which is deterministic and needs no torch.
"""

import io
import math
import re
import struct
import subprocess
from pathlib import Path
from typing import BinaryIO

import kaldiio
import numpy as np
import soundfile
import soxr

from espnet_taste.data.exclusions import ExclusionError
from espnet_taste.data.kaldi import find_file, recipe_folder, split_ark_place
from espnet_taste.types import SAMPLE_RATE_HZ

REASONS = (
    "unreadable",
    "empty",
    "too_short",
    "too_long",
    "silent",
    "nan",
    "pipe_refused",
    "no_audio",
)
# First bytes of what Kaldi and ESPnet store as sound in arks. A pickled object is not
# among them, although kaldiio would load one.
_ARK_SOUNDS = (b"RIFF", b"fLaC", b"AUDIO")


# The length of an mp3 file without a header of lengths is estimated, to about 2 frames.
MP3_SLACK = 2 * 1152  # samples
MAX_OVERSHOOT_S = 0.5  # of a segment over its recording, as in Kaldi
MIN_RATE_HZ = 1000  # speech is never below; kilohertz are often meant


class AudioError(ExclusionError):
    """Audio that cannot be used; ``reason`` is one of ``REASONS``."""


def read_audio(
    value: str,
    *,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    folder: Path = Path(),
    span_s: tuple[float, float] | None = None,
    allow_pipes: bool = False,
    kept: dict[str, tuple[np.ndarray, int]] | None = None,
) -> np.ndarray:
    """Read audio as one channel at one rate.

    Args:
        value: The right side of a wav.scp line: a path of any format that libsndfile
            reads (wav, flac, ogg, mp3, uncompressed sphere, ...), ``file.ark:offset``
            or ``command |``.
        sample_rate_hz: Rate to return, in Hz.
        folder: Folder of the wav.scp, for relative paths; see ``find_file``.
        span_s: Start and end in the recording in s; an end < 0 is the recording's end.
        allow_pipes: Run ``command |`` in a shell. Off by default: a data folder from
            elsewhere could run anything.
        kept: Where a recording of which only the span is wanted, but which has to be
            read whole (a command's, or one in an ark), stays for its next segment.

    Returns:
        Samples, (N,), float32, -1..1 nominally, N > 0, all finite. Channels are
        averaged.

    Raises:
        AudioError: With reason unreadable, empty, nan or pipe_refused.
    """
    value = value.strip()
    if value.endswith("|") or split_ark_place(value) is not None:
        kept = {} if span_s is None or kept is None else kept
        samples, rate = kept.get(value) or _read_whole(value, folder, allow_pipes, kept)
    else:
        samples, rate, span_s = _read_file(find_file(value, folder), span_s)
    if span_s is not None:
        samples = samples[slice(*_span_samples(span_s, rate, len(samples)))].copy()
    if samples.ndim == 2 and samples.size > 0:
        samples = samples.mean(axis=1)
    return _finish(samples, rate, sample_rate_hz, value)


def prepare_samples(
    samples: np.ndarray, rate_hz: float, where: str, *, target_hz: int = SAMPLE_RATE_HZ
) -> np.ndarray:
    """Bring an array to one channel at one rate.

    Args:
        samples: (N,), or channels along the shorter axis; floats -1..1 or integers of
            full scale.
        rate_hz: Its rate in Hz.
        where: What it is called in messages.
        target_hz: Rate to return, in Hz.

    Returns:
        As ``read_audio``.

    Raises:
        AudioError: With reason unreadable, empty or nan.
    """
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise AudioError(
            "unreadable",
            f"{where} has shape {samples.shape} and type {samples.dtype}, expected "
            "numbers of shape (samples,) or (channels, samples)",
        )
    if samples.dtype.kind in "iu" and samples.dtype.itemsize == 8:
        # As numpy makes of a list of 16-bit samples: their full scale is not its own.
        raise AudioError(
            "unreadable",
            f"{where} is of type {samples.dtype}, which tells no full scale; give "
            "int16, int32 or floats of -1..1",
        )
    rate_hz = _check_rate(rate_hz, where)
    samples = _scale(samples)
    if samples.ndim == 2 and samples.size > 0:
        samples = samples.mean(axis=int(np.argmin(samples.shape)))
    return _finish(samples, rate_hz, target_hz, where)


def _check_rate(rate_hz: float, where: str) -> float:
    """Refuse what is no rate of speech; soxr does not return from NaN."""
    try:
        rate = float(rate_hz)
    except (TypeError, ValueError):
        rate = math.nan
    if not MIN_RATE_HZ <= rate < math.inf:
        raise AudioError(
            "unreadable",
            f"{where} has a rate of {rate_hz!r}, expected samples a second "
            f"({MIN_RATE_HZ} or more)",
        )
    return rate


def _finish(
    samples: np.ndarray, rate: float, sample_rate_hz: int, value: str
) -> np.ndarray:
    """Check and resample one channel, (N,) at ``rate``."""
    if samples.size == 0:
        raise AudioError("empty", f"no samples in {value}")
    bad = int(samples.size - np.isfinite(samples).sum())
    if bad:
        raise AudioError("nan", f"{bad} of {samples.size} samples are not finite")
    samples = samples.astype(np.float32, copy=False)
    if rate != sample_rate_hz:
        samples = soxr.resample(samples, rate, sample_rate_hz, quality="HQ")
        if samples.size == 0:
            raise AudioError("empty", f"no samples in {value} at {sample_rate_hz} Hz")
    return np.ascontiguousarray(samples)


def _read_file(
    path: Path, span_s: tuple[float, float] | None
) -> tuple[np.ndarray, int, None]:
    """Read a sound file, decoding only the span where one is asked for."""
    if not path.is_file():
        raise AudioError("unreadable", f"no such file: {path}")
    try:
        return *read_sound(path, str(path), span_s), None
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        # TypeError: by its name it is raw, and nothing tells its rate.
        if path.stat().st_size == 0:
            raise AudioError("empty", f"{path} has 0 bytes") from error
        raise AudioError("unreadable", f"{path}: {_short(error)}") from error


def read_sound(
    file: Path | BinaryIO, where: str, span_s: tuple[float, float] | None = None
) -> tuple[np.ndarray, int]:
    """Read a sound file, refusing one that lacks its end.

    Args:
        file: A path or an open file.
        where: What it is called in messages.
        span_s: As of ``read_audio``; only it is decoded.

    Returns:
        Samples, (N,) or (N, C), float32, and their rate in Hz.

    Raises:
        AudioError: With reason unreadable.
        soundfile.SoundFileError: If libsndfile cannot read it.
    """
    with soundfile.SoundFile(file) as sound:
        start, stop = 0, sound.frames
        if span_s is not None:
            start, stop = _span_samples(span_s, sound.samplerate, sound.frames)
            sound.seek(start)
        samples = sound.read(stop - start, dtype="float32")
        slack = MP3_SLACK if sound.format == "MP3" else 0
        if len(samples) + slack < stop - start or _is_cut_off(sound):
            raise AudioError("unreadable", f"{where} was cut off")
        return samples, sound.samplerate


def _is_cut_off(sound: soundfile.SoundFile) -> bool:
    """Tell whether the header promises more bytes than the file has.

    libsndfile reads such a file without complaint, as shorter audio. Writers that do
    not know the length in advance promise almost 2 or 4 GB; that is no defect.
    """
    promise = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", sound.extra_info)
    return promise is not None and int(promise[2]) < int(promise[1]) < 0x7FFF0000


def _span_samples(
    span_s: tuple[float, float], rate: int, num_samples: int
) -> tuple[int, int]:
    """Turn times in s into sample positions inside the recording.

    A little more than there is, is cut off, as by Kaldi; much more is the segment of
    another recording, or this one lacks its end, and the transcript says too much.
    """
    start = min(max(round(span_s[0] * rate), 0), num_samples)
    stop = num_samples if span_s[1] < 0 else round(span_s[1] * rate)
    if start < num_samples and stop > num_samples + MAX_OVERSHOOT_S * rate:
        raise AudioError(
            "unreadable",
            f"the segment ends at {span_s[1]:g} s, its recording has "
            f"{num_samples / rate:g} s",
        )
    return start, max(start, min(stop, num_samples))


def _read_whole(
    value: str, folder: Path, allow_pipes: bool, kept: dict
) -> tuple[np.ndarray, int]:
    """Read what cannot be read in part, and keep it alone."""
    kept.clear()  # before there are two of them
    place = split_ark_place(value)
    if place is None:
        samples, rate = _read_pipe(value, allow_pipes, folder)
    else:
        samples, rate = _read_ark(find_file(place[0], folder), place[1])
    kept[value] = samples, rate
    return samples, rate


def _read_ark(path: Path, offset: int) -> tuple[np.ndarray, int]:
    """Read sound stored in an ark, as ESPnet's ``wav.ark`` and ``flac.ark`` are."""
    place = f"{path} at byte {offset}"
    if not path.is_file():
        raise AudioError("unreadable", f"no such file: {path}")
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            head = stream.read(8)
            if not head.startswith(_ARK_SOUNDS):
                raise AudioError("unreadable", f"no sound with a rate in {place}")
            stream.seek(offset)
            if head.startswith(b"RIFF"):
                return _read_riff(stream, place, struct.unpack("<I", head[4:])[0] + 8)
            rate, samples = kaldiio.matio.read_kaldi(stream)
    except AudioError:
        raise
    except (
        soundfile.SoundFileError,
        OSError,
        EOFError,
        struct.error,
        ValueError,
        AssertionError,
    ) as error:
        raise AudioError("unreadable", f"{place}: {_short(error)}") from error
    return _scale(np.asarray(samples)), int(rate)


def _read_riff(
    stream: io.BufferedReader, place: str, num_bytes: int
) -> tuple[np.ndarray, int]:
    """Read a wav file inside an ark; kaldiio would take mu-law for linear samples."""
    data = stream.read(num_bytes)
    if len(data) < num_bytes < 0x7FFF0000:
        raise AudioError("unreadable", f"{place} was cut off")
    return soundfile.read(io.BytesIO(data), dtype="float32")


def _scale(samples: np.ndarray) -> np.ndarray:
    """Bring integer samples to -1..1; (N,) or (N, C) of any type -> float32."""
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    if samples.dtype.kind == "u":
        middle = (int(np.iinfo(samples.dtype).max) + 1) / 2
        return (samples.astype(np.float32) - middle) / middle
    return samples.astype(np.float32, copy=False)


def command_folder(command: str, folder: Path) -> Path | None:
    """Tell where a command of a wav.scp finds the files that it names.

    Args:
        command: ``command |``.
        folder: Folder of the wav.scp.

    Returns:
        The recipe's folder if a file named is there and not in the working directory,
        else None, for the latter.
    """
    place = recipe_folder(folder)
    words = re.split(r"[\s|&;<>()'\"]+", command)
    found = place is not None and any(
        (place / word).is_file() and not Path(word).exists() for word in words
    )
    return place if found else None


def _read_pipe(value: str, allow_pipes: bool, folder: Path) -> tuple[np.ndarray, int]:
    """Run ``command |`` and read the sound that it prints."""
    if not allow_pipes:
        raise AudioError(
            "pipe_refused",
            f"'{value}' is a command; --allow_pipes true would run it, in the recipe "
            'within --format_opts "..."',
        )
    result = subprocess.run(
        value.rstrip("| "),
        shell=True,
        capture_output=True,
        cwd=command_folder(value, folder),
    )
    if result.returncode:
        words = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise AudioError(
            "unreadable",
            f"'{value}' ended with status {result.returncode}: {''.join(words)}",
        )
    try:
        return soundfile.read(io.BytesIO(result.stdout), dtype="float32")
    except soundfile.SoundFileError as error:
        raise AudioError("unreadable", f"'{value}': {_short(error)}") from error


def _short(error: Exception) -> str:
    """Return the last line of a library's message."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
