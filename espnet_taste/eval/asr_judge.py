"""The independent listener: a recogniser that is not part of the tokenizer.

It decodes greedily (temperature 0), without its own previous text as context, and
with a bound on tokens, so that one signal cannot change the score of another and a loop
ends. Where Whisper's own sign tells that it repeats itself, it listens once more with a
beam, and what repeats itself less counts: one loop can have more errors than a whole
test set. Nothing is drawn. It writes word times, which ``duration`` uses.

Whisper writes "twenty" or "20" as it likes, and no text normaliser that knows no
language can mend that. So the judge is forbidden every token with a digit
(``spell_numbers``) and spells numbers the way they are spoken. References that hold
digits want this off.

Transcripts go to a JSON lines cache under utterance id, audio and judge: a killed
run goes on where it stopped, and audio that changed is heard again.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from espnet_taste.eval.duration import TimedWord
from espnet_taste.eval.json_lines import ResumableLines
from espnet_taste.packages import require
from espnet_taste.types import SAMPLE_RATE_HZ

# Part of the judge's name: raise it when a decoding option below changes.
PROTOCOL = "greedy-2"
# Bytes of a text by those of it compressed; Whisper's own limit, and its usual beam.
LOOP_RATIO = 2.4
LOOP_BEAM = 5
# A window may hold 30 s; fast speech needs some 10 tokens a second.
TOKENS_PER_S = 20
EXTRA_TOKENS = 20
MAX_TOKENS = 220
# Shorter than this the recogniser's window holds nothing but padding.
MIN_SAMPLES = SAMPLE_RATE_HZ // 50


@dataclass(frozen=True)
class Transcript:
    """What the judge heard in one signal."""

    text: str
    words: tuple[TimedWord, ...]


class Judge(Protocol):
    """Anything that turns audio into a transcript under a stable name."""

    name: str  # every option that can change a transcript, in one line

    def transcribe(self, audio: np.ndarray) -> Transcript:
        """Transcribe mono audio, (n,), float32, 16 kHz."""
        ...


@dataclass(frozen=True)
class JudgeOptions:
    """How the judge decodes; all of it is in the judge's name."""

    language: str | None = "en"  # Whisper language code; None lets it guess
    spell_numbers: bool = True
    # A quarter faster than float32 here, two words of 540 apart; its kernels, and so
    # its roundings, differ between processors.
    compute_type: str = "int8"


class WhisperJudge:
    """Whisper through CTranslate2.

    Args:
        model_dir: Folder with CTranslate2 weights.
        model_name: Name and fingerprint of the weights, for the judge's name.
        options: Decoding options.
        num_threads: Threads of the recogniser; 0 lets it choose.

    Raises:
        MissingPackageError: If faster-whisper is not installed.
    """

    def __init__(
        self,
        model_dir: Path,
        model_name: str,
        options: JudgeOptions = JudgeOptions(),
        *,
        num_threads: int = 0,
    ):
        self.model = require("faster_whisper").WhisperModel(
            str(model_dir),
            device="cpu",
            compute_type=options.compute_type,
            cpu_threads=num_threads,
            local_files_only=True,
        )
        self.options = options
        self.name = (
            f"{model_name} {PROTOCOL} {options.compute_type} "
            f"language={options.language or 'guessed'} "
            f"spell_numbers={'yes' if options.spell_numbers else 'no'}"
        )
        # -1 stands for Whisper's own list of non-speech symbols.
        self.suppressed = [-1]
        if options.spell_numbers:
            self.suppressed += digit_tokens(self.model.hf_tokenizer.get_vocab())

    def transcribe(self, audio: np.ndarray) -> Transcript:
        """Transcribe mono audio, (n,), float32, 16 kHz."""
        if len(audio) < MIN_SAMPLES:
            return Transcript("", ())
        segments = self._decode(audio, 1)
        if _repetition(segments) > LOOP_RATIO:
            segments = min(segments, self._decode(audio, LOOP_BEAM), key=_repetition)
        words = [
            TimedWord(word.word.strip(), float(word.start), float(word.end))
            for segment in segments
            for word in segment.words or ()
        ]
        return Transcript(" ".join(word.text for word in words), tuple(words))

    def _decode(self, audio: np.ndarray, beam_size: int) -> list[Any]:
        """Return the segments that Whisper writes."""
        segments, _ = self.model.transcribe(
            audio,
            language=self.options.language,
            beam_size=beam_size,
            best_of=1,
            temperature=[0.0],
            condition_on_previous_text=False,
            suppress_tokens=list(self.suppressed),
            word_timestamps=True,
            max_new_tokens=token_bound(len(audio)),
        )
        return list(segments)


def _repetition(segments: list[Any]) -> float:
    """Return how far the most repetitive segment can be compressed."""
    return max((segment.compression_ratio for segment in segments), default=0.0)


def token_bound(num_samples: int) -> int:
    """Return how many tokens a window of a signal may have."""
    seconds = num_samples / SAMPLE_RATE_HZ
    return min(MAX_TOKENS, EXTRA_TOKENS + math.ceil(TOKENS_PER_S * seconds))


def digit_tokens(vocabulary: dict[str, int]) -> list[int]:
    """Return the ids of text tokens that contain a digit.

    Args:
        vocabulary: Token to id; specials look like ``<|0.02|>`` and are left out.
    """
    return sorted(
        index
        for token, index in vocabulary.items()
        if any(char.isdigit() for char in token) and not token.startswith("<|")
    )


def audio_hash(audio: np.ndarray) -> str:
    """Return a short hash of samples, (n,), float32."""
    samples = np.ascontiguousarray(audio, dtype="<f4")
    return hashlib.sha256(samples.tobytes()).hexdigest()[:16]


class JudgeCache:
    """Transcripts on disk, found by utterance id, audio and judge.

    Args:
        path: JSON lines file; made when needed.

    Raises:
        ValueError: If a line is broken (other than a cut-off last one) or the
            same signal has two transcripts under one name.
    """

    def __init__(self, path: Path):
        self.lines = ResumableLines(path, ("key", "audio", "judge", "text", "words"))
        self.known: dict[tuple[str, str, str], Transcript] = {}
        for where, row in self.lines.load():
            identity = (row["key"], row["audio"], row["judge"])
            transcript = _transcript_of(row, where)
            # Two systems that are judged at once both hear the original.
            if self.known.setdefault(identity, transcript) != transcript:
                raise ValueError(
                    f"{where}: '{row['key']}' is heard otherwise than before by the "
                    f"same judge; remove {path} to hear all again"
                )

    def judge(self, judge: Judge, key: str, audio: np.ndarray) -> Transcript:
        """Return the transcript of one signal, from the cache if it is there.

        Raises:
            ValueError: If a sample is not a finite number.
        """
        identity = (key, audio_hash(audio), judge.name)
        if identity in self.known:
            return self.known[identity]
        if not np.isfinite(audio).all():
            raise ValueError(f"audio of '{key}' has samples that are not finite")
        transcript = judge.transcribe(audio)
        row = dict(zip(("key", "audio", "judge"), identity), text=transcript.text)
        row["words"] = [[w.text, w.start_s, w.end_s] for w in transcript.words]
        self.lines.append(row)
        self.known[identity] = transcript
        return transcript


def judge_all(
    judge: Judge, signals: Iterable[tuple[str, np.ndarray]], cache: Path
) -> dict[str, Transcript]:
    """Transcribe many signals with a cache on disk.

    Args:
        judge: The listener.
        signals: Utterance id and audio, (n,), float32, 16 kHz; read lazily.
        cache: JSON lines file of earlier transcripts.

    Raises:
        ValueError: If an id comes twice, the cache is broken, or audio is not finite.
    """
    known = JudgeCache(cache)
    transcripts: dict[str, Transcript] = {}
    for key, audio in signals:
        if key in transcripts:
            raise ValueError(f"'{key}' is judged twice in one call")
        transcripts[key] = known.judge(judge, key, audio)
    return transcripts


def _transcript_of(row: dict[str, Any], where: str) -> Transcript:
    """Rebuild a transcript from its cache row."""
    try:
        words = tuple(
            TimedWord(text, float(start), float(end))
            for text, start, end in row["words"]
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: words must be a list of [text, start_s, end_s]: {error}"
        ) from error
    return Transcript(row["text"], words)
