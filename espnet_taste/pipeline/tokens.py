"""An utterance as words and TASTE codes: the value that everything else exchanges.

A ``TasteTokens`` holds no network. It is cut and joined by word like a list, saved
to one file, and carries the names of the models that made it, so that codes never
meet a codebook that they were not made with.

Symbols: W words, Q codebooks, D TASTE width, Ta Whisper tokens.

Source: TASTE (arXiv:2504.07053); one code vector a word.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import index as whole
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from espnet_taste.data.kaldi import atomic_write

FORMAT = "taste-tokens"
VERSION = 1
# Arrays with one row a word; the others belong to tokens or to the utterance.
PER_WORD = ("codes", "embeds", "times")
OPTIONAL = ("codes", "embeds", "times")


@dataclass(frozen=True, eq=False, repr=False)
class TasteTokens:
    """Words of one utterance and how each was spoken.

    Args:
        words: The words, W, in order, without blanks.
        speaker: Speaker embedding, (speaker_dim,), float32.
        asr_tokens: Whisper's tokens of the words, (Ta,), int64.
        asr_words: Word index of every token, (Ta,), int64, from 0 up without gaps.
        codes: Indices of the residual quantizer, (W, Q), int64; None from a tokenizer
            without quantizer.
        embeds: TASTE embeddings, (W, D), float32; the decoder reads them where there
            are no codes. None for those of the codes.
        times: Start and end of every word in s, (W, 2), float32, on the clock of the
            recording; None where they are not known.
        span_s: Start and end of what these words cover, in s, on the same clock.
        models: Role ("tokenizer", "whisper", ...) to name and sha256 of what made it.

    Raises:
        ValueError: If the parts do not fit each other; it names the part.
    """

    words: tuple[str, ...]
    speaker: np.ndarray
    asr_tokens: np.ndarray
    asr_words: np.ndarray
    codes: np.ndarray | None = None
    embeds: np.ndarray | None = None
    times: np.ndarray | None = None
    span_s: tuple[float, float] = (0.0, 0.0)
    models: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse parts that contradict each other."""
        if self.codes is None and self.embeds is None:
            raise ValueError("tokens need codes or embeds; both are None")
        for name in PER_WORD:
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(self.words):
                raise ValueError(
                    f"{len(self.words)} words, but {len(rows)} rows of {name}"
                )
        if len(self.asr_tokens) != len(self.asr_words):
            raise ValueError(
                f"{len(self.asr_tokens)} asr_tokens, but {len(self.asr_words)} of "
                "asr_words; both have one entry a token"
            )
        found = np.unique(self.asr_words)
        if not np.array_equal(found, np.arange(len(self.words))):
            raise ValueError(
                f"asr_words must number all {len(self.words)} words from 0, got "
                f"{found.tolist()[:8]}"
            )
        if np.any(np.diff(self.asr_words) < 0):
            raise ValueError("asr_words must not fall: tokens stand in order of words")
        for name in ("codes", "asr_tokens"):
            rows = getattr(self, name)
            if rows is not None and rows.size and rows.min() < 0:
                raise ValueError(f"{name} must be >= 0, found {int(rows.min())}")
        for name in ("embeds", "times"):
            rows = getattr(self, name)
            if rows is not None and not np.isfinite(rows).all():
                raise ValueError(f"{name} must be finite, found NaN or infinity")

    @property
    def text(self) -> str:
        """The words, joined by blanks."""
        return " ".join(self.words)

    def __len__(self) -> int:
        """Return the number of words W."""
        return len(self.words)

    def __repr__(self) -> str:
        """Return the text, the number of words and the span; not the numbers."""
        start_s, end_s = self.span_s
        text = self.text if len(self.text) <= 60 else f"{self.text[:60]}..."
        span = f", {start_s:.2f} to {end_s:.2f} s" if end_s > start_s else ""
        return f"TasteTokens({text!r}, {len(self)} words{span})"

    def __eq__(self, other: object) -> bool:
        """Tell whether all parts are equal, bit by bit."""
        if not isinstance(other, TasteTokens):
            return NotImplemented
        mine, theirs = self._arrays(), other._arrays()
        return (
            self._facts() == other._facts()
            and mine.keys() == theirs.keys()
            and all(np.array_equal(mine[name], theirs[name]) for name in mine)
        )

    __hash__ = None  # type: ignore[assignment]  # holds arrays

    def __getitem__(self, index: int | slice) -> "TasteTokens":
        """Cut words out; times stay on the clock of the recording.

        Args:
            index: A word or a range of words, without step.

        Raises:
            IndexError: If there is no such word.
            TypeError: If it is neither number nor range.
            ValueError: If the range has a step.
        """
        if not isinstance(index, slice):
            word = whole(index)
            if not -len(self) <= word < len(self):
                raise IndexError(f"word {word} of {len(self)}")
            word %= len(self)
            index = slice(word, word + 1)
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError(f"words are cut out in order, without step {step}")
        stop = max(stop, start)
        inside = (self.asr_words >= start) & (self.asr_words < stop)
        rows = {name: getattr(self, name) for name in PER_WORD}
        return replace(
            self,
            words=self.words[start:stop],
            asr_tokens=self.asr_tokens[inside],
            asr_words=self.asr_words[inside] - start,
            span_s=(self._edge_s(start), self._edge_s(stop)),
            **{n: None if r is None else r[start:stop] for n, r in rows.items()},
        )

    def up_to(self, duration_s: float) -> "TasteTokens":
        """Return the words up to the word end nearest to so many s, at least one.

        Raises:
            ValueError: If it is not known when the words were spoken.
        """
        if self.times is None or len(self) == 0:
            raise ValueError("words are cut by their times, which are not known")
        return self[: nearest_end(self.times - self.span_s[0], duration_s)]

    def _edge_s(self, word: int) -> float:
        """Return where a word begins; the ends of the span at its ends."""
        if word == 0 or self.times is None and word < len(self):
            return self.span_s[0]
        return self.span_s[1] if word == len(self) else float(self.times[word, 0])

    @staticmethod
    def concatenate(parts: Iterable["TasteTokens"]) -> "TasteTokens":
        """Join utterances word by word; the first one's speaker is kept.

        Where a part does not begin where the one before ended, its times move.

        Raises:
            TypeError: If a part is no ``TasteTokens``.
            ValueError: If there is no part, or parts are of different tokenizers.
        """
        parts, _ = listed(parts)
        if not parts:
            raise ValueError("there is nothing to concatenate")
        first = parts[0]
        for part in parts[1:]:
            require_same_tokenizer(part, first.models, "concatenate")
        joined: dict[str, Any] = {}
        for name in PER_WORD:
            rows = [getattr(part, name) for part in parts]
            known = not any(row is None for row in rows)
            joined[name] = np.concatenate(rows) if known else None
        end_s, times = first.span_s[0], []
        for part in parts:
            shift = end_s - part.span_s[0]
            if part.times is not None:
                times.append(part.times + np.float32(shift) if shift else part.times)
            end_s = part.span_s[1] + shift if shift else part.span_s[1]
        if joined["times"] is not None:
            joined["times"] = np.concatenate(times)
        counts = np.cumsum([0] + [len(part) for part in parts[:-1]])
        return replace(
            first,
            words=tuple(word for part in parts for word in part.words),
            asr_tokens=np.concatenate([part.asr_tokens for part in parts]),
            asr_words=np.concatenate(
                [part.asr_words + n for part, n in zip(parts, counts, strict=True)]
            ),
            span_s=(first.span_s[0], end_s),
            **joined,
        )

    def __add__(self, other: "TasteTokens") -> "TasteTokens":
        """Join two utterances; see ``concatenate``."""
        if not isinstance(other, TasteTokens):
            return NotImplemented
        return TasteTokens.concatenate([self, other])

    def _arrays(self) -> dict[str, np.ndarray]:
        names = ("speaker", "asr_tokens", "asr_words", *OPTIONAL)
        arrays = {name: getattr(self, name) for name in names}
        return {name: value for name, value in arrays.items() if value is not None}

    def _facts(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "words": list(self.words),
            "span_s": list(self.span_s),
            "models": dict(self.models),
        }

    def save(self, path: str | Path) -> None:
        """Write one safetensors file; it appears under its name only when complete."""
        arrays = {n: np.ascontiguousarray(a) for n, a in self._arrays().items()}
        facts = json.dumps(self._facts(), ensure_ascii=False)
        with atomic_write(Path(path), "wb") as stream:
            stream.write(save(arrays, metadata={FORMAT: facts}))

    @classmethod
    def load(cls, path: str | Path) -> "TasteTokens":
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such file, is cut off, or of a later version.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no TASTE tokens at {path}")
        try:
            with safe_open(path, "numpy") as stored:
                header = (stored.metadata() or {}).get(FORMAT)
                arrays = {name: stored.get_tensor(name) for name in stored.keys()}
        except SafetensorError as error:
            raise ValueError(f"{path} holds no TASTE tokens: {error}") from error
        if header is None:
            raise ValueError(f"{path} holds no TASTE tokens: it has no '{FORMAT}'")
        try:
            facts = json.loads(header)
            if facts["version"] > VERSION:
                raise ValueError(
                    f"it is of version {facts['version']}, this program knows up to "
                    f"{VERSION}; update espnet-taste"
                )
            return cls(
                words=tuple(facts["words"]),
                span_s=tuple(facts["span_s"]),
                models=facts["models"],
                **arrays,
            )
        except KeyError as error:
            raise ValueError(f"{path} holds no TASTE tokens: no {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def listed(
    tokens: TasteTokens | Iterable[TasteTokens],
) -> tuple[list[TasteTokens], bool]:
    """Return utterances as a list, and whether they were more than a single one.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(tokens, TasteTokens):
        return [tokens], False
    rows = list(tokens) if isinstance(tokens, Iterable) else [tokens]
    for row in rows:
        if not isinstance(row, TasteTokens):
            raise TypeError(
                f"expected TasteTokens or a list of them, got a {type(row).__name__}; "
                "encode makes them of audio, TasteTokens.load reads a file of them"
            )
    return rows, True


def require_same_tokenizer(
    tokens: TasteTokens, models: Mapping[str, str], purpose: str
) -> None:
    """Refuse codes of another tokenizer: the same numbers mean other sounds there.

    Raises:
        ValueError: If both name their tokenizer and the names differ.
    """
    mine, theirs = models.get("tokenizer"), tokens.models.get("tokenizer")
    if mine and theirs and mine != theirs:
        raise ValueError(
            f"cannot {purpose} '{tokens.text[:40]}': its codes are of tokenizer "
            f"{theirs}, expected {mine}; encode the audio again"
        )


def nearest_end(times: np.ndarray, duration_s: float) -> int:
    """Return how many words end up to the word end nearest to so many s, at least one.

    Args:
        times: Start and end of every word in s from the audio's beginning on, (W, 2).
        duration_s: Seconds.
    """
    return int(np.abs(times[:, 1] - duration_s).argmin()) + 1
