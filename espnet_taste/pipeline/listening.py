"""Transcripts and word times, from the tokenizer's own encoder pass where it will do.

The tokenizer's encoder is that of a Whisper model. Where transcript or times are
wanted of the same model, its decoder reads the states that are there already. A
Whisper with other weights in its encoder (another one, or the same in other precision)
hears the recording itself.

Symbols: B batch, T frames, W words.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from espnet_taste.align.transcripts import WhisperTranscriber
from espnet_taste.align.whisper_dtw import WhisperAligner, load_whisper
from espnet_taste.tokenizer.contracts import AbsEncoder
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.types import SAMPLE_RATE_HZ


class Transcriber(Protocol):
    """Anything that writes down what is said, such as ``EspnetAsr``."""

    def transcribe(self, audios: Sequence[np.ndarray]) -> list[str]:
        """Return transcripts of at most 30 s each, (N,) float32 at 16 kHz."""
        ...


class StateListener:
    """Whisper's decoder on states of its own encoder.

    Args:
        loaded: What ``load_whisper`` returns.
        language: Code of the spoken language.
        task: "transcribe" or "translate".
    """

    def __init__(
        self,
        loaded: tuple[Any, Any, Any],
        language: str = "en",
        task: str = "transcribe",
    ):
        self.transcriber = WhisperTranscriber.from_loaded(*loaded, language, task)
        self.aligner = WhisperAligner.from_loaded(*loaded, language, task)

    def transcribe(
        self, states: EncoderStates, waves: Sequence[np.ndarray]
    ) -> list[str]:
        """Return the transcript of every row; it does not depend on the others.

        Args:
            states: States of the recordings.
            waves: The recordings, each (N,), 16 kHz; not read here.
        """
        return self.transcriber.transcribe_states(self._fill(states.keys, states.mask))

    @cached_property
    def silence(self) -> Tensor:
        """Last states of silence, (T, D), T the frames of Whisper's window."""
        with torch.no_grad():
            nothing = np.zeros(SAMPLE_RATE_HZ // 10, np.float32)
            return self.aligner.encode_speech(nothing)[0]

    def _fill(self, keys: Tensor, mask: Tensor) -> Tensor:
        """Put states of silence behind those of trimmed audio, (B, T, D).

        Whisper ends a transcript where it hears nothing more: without silence it goes
        on until its limit (WER 534 instead of 22 % on 20 short utterances, 22 % with
        the whole window encoded).
        """
        if keys.size(1) == self.window and bool(mask.all()):
            return keys
        filled = self.silence.to(keys).repeat(len(keys), 1, 1)
        filled[:, : keys.size(1)] = torch.where(
            mask[..., None], keys, filled[:, : keys.size(1)]
        )
        return filled

    @property
    def window(self) -> int:
        """Frames of Whisper's window."""
        return self.aligner.whisper.config.max_source_positions

    def word_times(
        self, keys: Tensor, audio: np.ndarray, words: Sequence[str]
    ) -> np.ndarray:
        """Return start and end of every word in s, (W, 2), float32.

        Args:
            keys: Last states of the utterance, (T, D), no padding.
            audio: The utterance, (N,), 16 kHz.
            words: Its words.

        Raises:
            AlignmentError: If there is no alignment to be had.
        """
        mask = torch.ones(1, len(keys), dtype=torch.bool, device=keys.device)
        return self.aligner.align_states(
            self._fill(keys[None], mask), audio, words
        ).times


class AudioListener(StateListener):
    """Whisper on the recordings, for a tokenizer with another encoder."""

    def transcribe(
        self, states: EncoderStates, waves: Sequence[np.ndarray]
    ) -> list[str]:
        """Return the transcript of every recording; the states are not read."""
        return self.transcriber.transcribe(waves)

    def word_times(
        self, keys: Tensor, audio: np.ndarray, words: Sequence[str]
    ) -> np.ndarray:
        """Return start and end of every word; the states are not read."""
        return self.aligner.align(audio, words).times


def open_listener(
    model: str,
    encoder: AbsEncoder,
    *,
    language: str,
    task: str = "transcribe",
    device: str,
) -> StateListener:
    """Open a Whisper that listens along with a tokenizer.

    Args:
        model: Whisper weights, name or folder.
        encoder: The tokenizer's encoder, whose states are read if they are the same.
        language: Code of the spoken language.
        task: "transcribe" or "translate".
        device: Torch device.
    """
    loaded = load_whisper(model, device)
    kind = StateListener if has_weights_of(encoder, loaded[0]) else AudioListener
    return kind(loaded, language, task)


def has_weights_of(encoder: AbsEncoder, whisper: Any) -> bool:
    """Tell whether an encoder has the weights of a Whisper's, in whatever precision.

    Args:
        encoder: A tokenizer's encoder.
        whisper: A transformers Whisper with encoder and decoder.
    """
    if not isinstance(encoder, WhisperEncoder):
        return False
    theirs = whisper.get_encoder().state_dict()
    ours = encoder.encoder.state_dict()
    return ours.keys() == theirs.keys() and all(
        value.shape == theirs[name].shape and value.equal(theirs[name].to(value))
        for name, value in ours.items()
    )
