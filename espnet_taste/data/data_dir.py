"""A Kaldi-style data folder: wav.scp, and segments, text, utt2spk if there are any."""

import json
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import numpy as np

from espnet_taste.data.audio import AudioError, command_folder, read_audio
from espnet_taste.data.exclusions import ExclusionError, check_share, summary_table
from espnet_taste.data.kaldi import (
    find_file,
    read_table,
    split_ark_place,
    write_table,
)
from espnet_taste.types import SAMPLE_RATE_HZ

Span = tuple[str, float, float]  # recording, start and end in s (end < 0: its end)


@dataclass(frozen=True)
class DataDir:
    """The tables of one folder, as they are on disk."""

    folder: Path
    wav: dict[str, str]  # recording (or utterance) id to the right side of wav.scp
    segments: dict[str, Span] | None  # utterance id to span; None without the file
    text: dict[str, str] | None  # utterance id to transcript; None without the file
    utt2spk: dict[str, str] | None  # utterance id to speaker; None without the file
    # The recording that was read last, if it was read whole for one of its segments.
    kept: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def utterances(self) -> list[str]:
        """All ids, sorted: those with audio and those that stand in text only."""
        with_audio = self.wav if self.segments is None else self.segments
        return sorted(with_audio.keys() | (self.text or {}).keys())

    def place_of(self, recording: str) -> str | None:
        """Return where a recording lies, or what makes it, seen from the working dir.

        None if it is not in wav.scp.
        """
        value = self.wav.get(recording)
        if value is None:
            return None
        if value.endswith("|"):
            place = command_folder(value, self.folder)
            return value if place is None else f"cd {quote(str(place))} && {value}"
        ark = split_ark_place(value)
        if ark is None:
            return str(find_file(value, self.folder))
        return f"{find_file(ark[0], self.folder)}:{ark[1]}"

    def read(self, key: str, *, allow_pipes: bool = False) -> np.ndarray:
        """Read the audio of one utterance.

        Args:
            key: Utterance id.
            allow_pipes: Run the commands that a wav.scp may hold.

        Returns:
            Samples, (N,), float32, at 16 kHz.

        Raises:
            AudioError: With the reasons of ``read_audio``, or no_audio.
        """
        recording, span_s = key, None
        if self.segments is not None:
            if key not in self.segments:
                raise AudioError("no_audio", "in text, but not in segments")
            recording, *span_s = self.segments[key]
        if recording not in self.wav:
            name = "" if recording == key else f"recording '{recording}' is "
            raise AudioError("no_audio", f"{name}not in wav.scp")
        return read_audio(
            self.wav[recording],
            sample_rate_hz=SAMPLE_RATE_HZ,
            folder=self.folder,
            span_s=None if span_s is None else tuple(span_s),
            allow_pipes=allow_pipes,
            kept=self.kept,
        )


def read_data_dir(folder: str | Path, keys: Container[str] | None = None) -> DataDir:
    """Read the tables of a data folder.

    Args:
        folder: It must have a wav.scp.
        keys: Utterances to read the lines of, as a job among many needs; None: all.

    Returns:
        The tables.

    Raises:
        FileNotFoundError: If there is no wav.scp.
        ValueError: If an id is repeated or a line cannot be understood.
    """
    folder = Path(folder)
    if not (folder / "wav.scp").is_file():
        raise FileNotFoundError(
            f"no wav.scp in {folder}; is it a prepared data folder?"
        )

    def optional(name: str) -> dict[str, str] | None:
        return read_table(folder / name, keys) if (folder / name).is_file() else None

    segments, recordings = optional("segments"), keys
    if segments is not None:
        segments = _parse_spans(segments, folder)
        if keys is not None:
            recordings = {recording for recording, _, _ in segments.values()}
    return DataDir(
        folder=folder,
        wav=read_table(folder / "wav.scp", recordings),
        segments=segments,
        text=optional("text"),
        utt2spk=optional("utt2spk"),
    )


def _parse_spans(table: Mapping[str, str], folder: Path) -> dict[str, Span]:
    """Parse ``recording start end``; all bad lines are named at once."""
    spans, bad = {}, []
    for key, value in table.items():
        match = re.fullmatch(r"(\S+)\s+(\d\S*)\s+(-?\d\S*)", value)
        try:
            span = (match[1], float(match[2]), float(match[3])) if match else None
        except ValueError:
            span = None
        if span is None or 0 <= span[2] <= span[1]:
            bad.append(f"{key} {value}")
        else:
            spans[key] = span
    if bad:
        raise ValueError(
            f"{folder}/segments: expected 'utterance recording start end' in s with "
            f"start < end, got {len(bad)} others: {'; '.join(bad[:10])}"
        )
    return spans


def select_keys(keys: Iterable[str], key_file: str | Path | None) -> list[str]:
    """Return the utterances a job works on.

    Args:
        keys: All there are.
        key_file: Its first column names a subset; None for all.

    Returns:
        Ids, sorted.

    Raises:
        ValueError: If the subset names an unknown utterance.
    """
    known = set(keys)
    if key_file is None:
        return sorted(known)
    wanted = read_table(key_file)
    unknown = sorted(wanted.keys() - known)
    if unknown:
        raise ValueError(
            f"{key_file}: {len(unknown)} ids are not in the data folder, for instance "
            f"'{unknown[0]}'"
        )
    return sorted(wanted)


def keys_in(key_file: str | Path | None) -> Container[str] | None:
    """Return the ids in the first column of a job's part of a set; None for all."""
    return None if key_file is None else read_table(key_file).keys()


def speaker_of(key: str, utt2spk: Mapping[str, str] | None, speaker_from: str) -> str:
    """Return the speaker of an utterance.

    Args:
        key: Utterance id.
        utt2spk: The table of that name; not needed for ``utterance``.
        speaker_from: ``utt2spk``; ``strip_chapter``, which drops the last part of
            LibriSpeech-style names (``103-1240`` or ``103_1240`` becomes ``103``); or
            ``utterance``, every utterance a speaker of its own.

    Returns:
        Speaker name.

    Raises:
        ExclusionError: With reason no_speaker, if the table lacks the utterance.
        ValueError: If there is no chapter to drop.
    """
    if speaker_from == "utterance":
        return key
    speaker = (utt2spk or {}).get(key)
    if not speaker:
        raise ExclusionError("no_speaker", "not in utt2spk")
    if speaker_from == "utt2spk":
        return speaker
    match = re.fullmatch(r"(.+)[-_][^-_]+", speaker)
    if match is None:
        raise ValueError(
            f"speaker '{speaker}' of '{key}' has no chapter to strip; use "
            "--speaker_from utt2spk"
        )
    return match[1]


def finish_joined(folder: Path) -> None:
    """Do what single jobs leave to whoever joins their folders.

    Writes spk2utt, prints the counts, and stops if too much was left out.

    Args:
        folder: The joined tables. Without utt2spk or summary.json nothing is done
            about them, so that any kind of job can be joined.

    Raises:
        ValueError: If a larger share was left out than the jobs' --max_excluded.
    """
    if (folder / "utt2spk").is_file():
        write_speakers(folder, read_table(folder / "utt2spk"), inverse=True)
    if (folder / "summary.json").is_file():
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        if "max_excluded" in summary:
            print(f"{folder}\n{summary_table(summary)}")
            check_share(summary, folder)


def write_speakers(folder: Path, utt2spk: Mapping[str, str], inverse: bool) -> None:
    """Write utt2spk and, if wanted, spk2utt.

    Args:
        folder: Where to.
        utt2spk: Utterance id to speaker.
        inverse: Also write spk2utt. Not for one job of several: their tables are
            joined by key, and a speaker may be in two of them.
    """
    write_table(folder / "utt2spk", utt2spk)
    if inverse:
        write_table(folder / "spk2utt", utterances_of(utt2spk))


def utterances_of(utt2spk: Mapping[str, str]) -> dict[str, str]:
    """Return the lines of spk2utt: speaker to utterance ids, sorted, with blanks."""
    spk2utt: dict[str, list[str]] = {}
    for key in sorted(utt2spk):
        spk2utt.setdefault(utt2spk[key], []).append(key)
    return {name: " ".join(keys) for name, keys in spk2utt.items()}
