"""Free-running scores of one system: judge both signals, compare what it heard.

Audio a system did not manage to make (no sample, nothing but silence) is a result,
not a gap: it is heard as nothing, which is all deletions, and counted. Audio that
cannot be read, or holds a NaN, stops the run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_taste.data.audio import AudioError, read_audio
from espnet_taste.eval.asr_judge import Judge, Transcript, judge_all
from espnet_taste.eval.duration import duration_items
from espnet_taste.eval.error_rate import error_items
from espnet_taste.eval.normalise import normalise
from espnet_taste.eval.speaker import similarity_items

Items = dict[str, dict[str, float]]
# What read_audio calls audio without speech in it.
NOTHING = ("empty", "too_short", "silent")


@dataclass(frozen=True)
class AudioSet:
    """The signals of one system on one test set."""

    wavs: Mapping[str, str]  # utterance id -> right side of wav.scp
    folder: Path  # of the wav.scp

    def read(self, key: str) -> np.ndarray:
        """Return one signal, (n,), float32, 16 kHz; n = 0 if there is no speech.

        Raises:
            ValueError: If it cannot be read; names the utterance.
        """
        try:
            audio = read_audio(self.wavs[key], folder=self.folder)
        except AudioError as error:
            if error.reason in NOTHING:
                return np.zeros(0, dtype=np.float32)
            raise ValueError(f"'{key}': {error}") from error
        # An all-zero signal has no direction in any embedding space either.
        return audio if np.any(audio) else np.zeros(0, dtype=np.float32)


@dataclass(frozen=True)
class Listener:
    """What hears the signals, and where it keeps what it heard."""

    judge: Judge
    cache: Path  # of the system's audio
    reference_cache: Path  # of the original audio
    embed: Callable[[np.ndarray], np.ndarray]  # (n,) at 16 kHz -> (E,)


def score_original(
    texts: Mapping[str, str], original: AudioSet, listener: Listener
) -> tuple[Items, dict[str, int]]:
    """Score the original audio: error rates only, it is its own reference.

    Args:
        texts: Utterance id to transcript; every one is scored.
        original: The original signals.
        listener: What hears them.

    Returns:
        Counts per utterance, and the number of utterances per reason of note.
    """
    heard = _listen(texts, original, listener, listener.reference_cache)
    items = error_items(texts, _heard_texts(heard))
    return items, _notes(items, heard)


def score_outputs(
    texts: Mapping[str, str], original: AudioSet, outputs: AudioSet, listener: Listener
) -> tuple[Items, dict[str, int]]:
    """Score a system's audio against the transcript and against the original.

    Args:
        texts: Utterance id to transcript; every one is scored.
        original: The original signals.
        outputs: The system's signals of the same utterances.
        listener: What hears them.

    Returns:
        Counts per utterance, and the number of utterances per reason of note.

    Raises:
        ValueError: If an utterance has no signal or cannot be read.
    """
    reference = _listen(texts, original, listener, listener.reference_cache)
    heard = _listen(texts, outputs, listener, listener.cache)
    items = error_items(texts, _heard_texts(heard))
    durations = duration_items(
        {key: reference[key].words for key in texts},
        {key: heard[key].words for key in texts},
    )
    similarities, silent = _similarities(texts, original, outputs, listener)
    for key, fields in items.items():
        fields |= durations[key] | similarities[key]
    unmatched = sum(not fields["matched_words"] for fields in durations.values())
    return items, _notes(items, heard) | {
        "no_audio (left out of speaker similarity)": silent,
        "no_word_matched (left out of durations)": unmatched,
    }


def _notes(items: Items, heard: Mapping[str, Transcript]) -> dict[str, int]:
    """Count what a reader of the error rates should know."""
    return {
        "heard_as_nothing": sum(not normalise(t.text) for t in heard.values()),
        "empty_reference (adds insertions only)": sum(
            not fields["words"] for fields in items.values()
        ),
    }


def _listen(
    texts: Mapping[str, str], signals: AudioSet, listener: Listener, cache: Path
) -> dict[str, Transcript]:
    """Judge every utterance of the set."""
    missing = sorted(texts.keys() - signals.wavs.keys())
    if missing:
        raise ValueError(
            f"{signals.folder}: no audio for {len(missing)} of {len(texts)} "
            f"utterances: {missing[:10]}"
        )
    pairs = ((key, signals.read(key)) for key in texts)
    return judge_all(listener.judge, pairs, cache)


def _heard_texts(heard: Mapping[str, Transcript]) -> dict[str, str]:
    """Return the recognised text per utterance."""
    return {key: transcript.text for key, transcript in heard.items()}


def _similarities(
    texts: Mapping[str, str], original: AudioSet, outputs: AudioSet, listener: Listener
) -> tuple[Items, int]:
    """Compare speakers; an output or original without audio counts as not compared."""
    originals: dict[str, np.ndarray] = {}
    others: dict[str, np.ndarray] = {}
    for key in texts:
        signals = (original.read(key), outputs.read(key))
        if all(len(audio) for audio in signals):
            originals[key], others[key] = map(listener.embed, signals)
    found = similarity_items(originals, others)
    absent = {"similarity": 0, "compared": 0}
    return {key: found.get(key, absent) for key in texts}, len(texts) - len(found)
