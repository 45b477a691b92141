"""What came of an edit: durations and pitch of every word, before and after.

Both signals are heard by the tokenizer's own Whisper: its decoder says when the words
are spoken, knowing them, and once more what it hears without knowing them. Times of a
word that it does not hear are a guess at where it should be; such words are measured,
marked and left out of the summary.

Symbols: N samples, W words, T pitch frames.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from espnet_taste.align.contracts import AlignmentError
from espnet_taste.data.audio import AudioError, prepare_samples
from espnet_taste.pipeline.editing import Edit
from espnet_taste.pipeline.speech import Speech
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import space_signs, spelling, split_words

Pitch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Speech of adults and children; harvest's own floor of 71 Hz is above low voices.
F0_FLOOR_HZ, F0_CEIL_HZ = 50.0, 600.0
NEEDS_PYWORLD = "pitch needs pyworld: pip install 'espnet-taste[eval]'"


@dataclass(frozen=True)
class WordMeasure:
    """One word in one signal; None where it could not be measured."""

    word: str
    duration_s: float | None
    f0_hz: float | None  # median over its voiced frames
    is_heard: bool  # by a listener that does not know the text


@dataclass(frozen=True)
class WordChange:
    """One word of the edited tokens and the word it was."""

    place: int  # in the edited tokens, from 0
    is_edited: bool
    before: WordMeasure
    after: WordMeasure

    @property
    def duration_change_s(self) -> float | None:
        """Duration after minus before, in s, of a word heard in both signals."""
        if not self._is_comparable(self.before.duration_s, self.after.duration_s):
            return None
        return self.after.duration_s - self.before.duration_s

    @property
    def f0_change_semitones(self) -> float | None:
        """Pitch after over before, in semitones, of a word heard in both signals."""
        if not self._is_comparable(self.before.f0_hz, self.after.f0_hz):
            return None
        return 12 * float(np.log2(self.after.f0_hz / self.before.f0_hz))

    def _is_comparable(self, *values: float | None) -> bool:
        is_heard = self.before.is_heard and self.after.is_heard
        return is_heard and not any(value is None for value in values)


@dataclass(frozen=True)
class EditReport:
    """An edit as it can be heard.

    Args:
        words: One entry a word of the edited tokens.
        caveats: Those of the edit.
        notes: Why something was not measured; empty if nothing is missing.
    """

    words: tuple[WordChange, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Return how far edited words moved, and how far the others did.

        Words that were not edited tell what drawing units anew does alone.

        Returns:
            "edited" and "others", each with ``words``, how many of them were compared
            (``with_duration``, ``with_f0``), and the medians of absolute changes
            (``duration_change_s``, ``f0_change_semitones``; None of no word).
        """
        groups = {"edited": True, "others": False}
        return {
            name: _summary([w for w in self.words if w.is_edited is wanted])
            for name, wanted in groups.items()
        }

    def facts(self) -> dict[str, Any]:
        """Return everything as what JSON knows."""
        words = [
            {
                **asdict(word),
                "duration_change_s": word.duration_change_s,
                "f0_change_semitones": word.f0_change_semitones,
            }
            for word in self.words
        ]
        return {
            "summary": self.summary(),
            "words": words,
            "caveats": list(self.caveats),
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """Return ``facts`` as JSON with a line end."""
        return json.dumps(self.facts(), ensure_ascii=False, indent=2) + "\n"

    def to_text(self) -> str:
        """Return a table for a terminal: edited words with a star."""
        rows = [("", "word", "before", "after", "before", "after", "heard")]
        for word in self.words:
            before, after = word.before, word.after
            text = after.word
            if before.word != after.word:
                text = f"{before.word} > {after.word}"
            rows.append(
                (
                    "*" if word.is_edited else "",
                    text,
                    _shown(before.duration_s, "{:.2f} s"),
                    _shown(after.duration_s, "{:.2f} s"),
                    _shown(before.f0_hz, "{:.0f} Hz"),
                    _shown(after.f0_hz, "{:.0f} Hz"),
                    f"{'yes' if before.is_heard else 'no'}, "
                    f"{'yes' if after.is_heard else 'no'}",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(n) for cell, n in zip(row, widths, strict=True))
            for row in rows
        ]
        for name, group in self.summary().items():
            lines.append(f"{name}: {_sentence(group)}")
        return "\n".join(line.rstrip() for line in [*lines, *self.notes]) + "\n"


def report_edit(
    tokens: TasteTokens,
    edit: Edit,
    before: Speech | np.ndarray,
    after: Speech | np.ndarray,
    tokenizer: TasteTokenizer,
    *,
    pitch: Pitch | None = None,
) -> EditReport:
    """Measure an edit in two signals.

    Args:
        tokens: The unedited tokens.
        edit: The edit of them.
        before: Their speech, or samples at 16 kHz, (N,): decoded by the same tokenizer
            with the same seed, or the edit is compared with the loss of coding, too.
        after: Speech or samples of the edited tokens.
        tokenizer: Its Whisper listens.
        pitch: Samples at 16 kHz, (N,), to F0 in Hz, 0 where unvoiced, and the time of
            every frame in s, (T,) each, such as ``harvest``; None measures no pitch.

    Returns:
        The report. A signal that cannot be measured, an empty one for example, is
        a result: its words have no measures, and ``notes`` says why.
    """
    notes: list[str] = []
    rows = []
    for name, signal, words in (
        ("before", before, tokens.words),
        ("after", after, edit.tokens.words),
    ):
        rows.append(_measure(name, signal, words, tokenizer, pitch, notes))
    if pitch is None:
        notes.append("Pitch was not measured.")
    olds, news = rows
    changed = set(edit.changed)
    words = tuple(
        WordChange(place, place in changed, olds[origin], new)
        for place, (origin, new) in enumerate(zip(edit.origins, news, strict=True))
    )
    return EditReport(words, edit.caveats, tuple(notes))


def harvest(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return F0 by WORLD's harvest.

    Args:
        wave: Samples at 16 kHz, (N,).

    Returns:
        F0 in Hz, 0 where unvoiced, and the time of every frame in s; (T,), float64.

    Raises:
        ModuleNotFoundError: If pyworld is not installed; holds the install command.
    """
    try:
        with warnings.catch_warnings():
            # Of how pyworld finds its own version.
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            import pyworld
    except ModuleNotFoundError as error:
        # A package that is there but lacks one of its own is another fault.
        if error.name != "pyworld":
            raise
        raise ModuleNotFoundError(NEEDS_PYWORLD, name="pyworld") from error
    samples = np.ascontiguousarray(wave, dtype=np.float64)
    return pyworld.harvest(
        samples, SAMPLE_RATE_HZ, f0_floor=F0_FLOOR_HZ, f0_ceil=F0_CEIL_HZ
    )


def _at_16_khz(signal: Speech | np.ndarray, name: str) -> np.ndarray:
    where = f"the audio {name} the edit"
    if isinstance(signal, Speech):
        return prepare_samples(signal.audio, signal.sample_rate_hz, where)
    return prepare_samples(signal, SAMPLE_RATE_HZ, where)


def _measure(
    name: str,
    signal: Speech | np.ndarray,
    words: Sequence[str],
    tokenizer: TasteTokenizer,
    pitch: Pitch | None,
    notes: list[str],
) -> list[WordMeasure]:
    """Measure the words of one signal; what is missing is added to the notes."""
    try:
        wave = _at_16_khz(signal, name)
        times, transcript = tokenizer.encoder.hear_words(wave, words)
    except (AudioError, AlignmentError) as error:
        notes.append(f"No words were found in the audio {name} the edit: {error}.")
        return [WordMeasure(word, None, None, False) for word in words]
    heard = _heard(words, split_words(space_signs(transcript)))
    medians: list[float | None] = [None] * len(words)
    if pitch is not None:
        medians = _medians(*pitch(wave), times)
    return [
        WordMeasure(word, float(end_s - start_s), f0_hz, is_heard)
        for word, (start_s, end_s), f0_hz, is_heard in zip(
            words, times, medians, heard, strict=True
        )
    ]


def _medians(
    f0_hz: np.ndarray, frames_s: np.ndarray, times: np.ndarray
) -> list[float | None]:
    """Return the median F0 of every word; None of a word without voiced frames."""
    medians: list[float | None] = []
    for start_s, end_s in times:
        inside = (frames_s >= start_s) & (frames_s < end_s) & (f0_hz > 0)
        medians.append(float(np.median(f0_hz[inside])) if inside.any() else None)
    return medians


def _heard(words: Sequence[str], transcript: Sequence[str]) -> list[bool]:
    """Tell which words a transcript has, in order, whatever their case and signs."""
    wanted, found = [spelling(w) for w in words], [spelling(w) for w in transcript]
    heard = [False] * len(words)
    matcher = SequenceMatcher(None, wanted, found, autojunk=False)
    for block in matcher.get_matching_blocks():
        heard[block.a : block.a + block.size] = [True] * block.size
    return heard


def _summary(words: Sequence[WordChange]) -> dict[str, float | int | None]:
    durations = [
        abs(w.duration_change_s) for w in words if w.duration_change_s is not None
    ]
    pitches = [
        abs(w.f0_change_semitones) for w in words if w.f0_change_semitones is not None
    ]
    return {
        "words": len(words),
        "with_duration": len(durations),
        "with_f0": len(pitches),
        "duration_change_s": float(np.median(durations)) if durations else None,
        "f0_change_semitones": float(np.median(pitches)) if pitches else None,
    }


def _sentence(group: dict[str, float | int | None]) -> str:
    duration = _shown(group["duration_change_s"], "{:.3f} s")
    pitch = _shown(group["f0_change_semitones"], "{:.2f} semitones")
    return (
        f"{duration} in {group['with_duration']} and {pitch} in {group['with_f0']} of "
        f"{group['words']} words (medians)"
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
