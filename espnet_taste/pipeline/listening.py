"""Transcripts and word times from the tokenizer's own encoder pass.

The tokenizer's encoder is that of a Whisper model. Where transcript or times are
wanted of the same model, its decoder reads the states that are there already.

Symbols: B batch, T frames, W words.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from espnet_taste.align.transcripts import WhisperTranscriber
from espnet_taste.align.whisper_dtw import WhisperAligner, load_whisper
from espnet_taste.tokenizer.states import EncoderStates
from espnet_taste.types import SAMPLE_RATE_HZ


class StateListener:
    """Whisper's decoder on states of its own encoder.

    Args:
        model: Whisper weights, name or folder: those of the tokenizer's encoder.
        language: Code of the spoken language.
        device: Torch device.
    """

    def __init__(self, model: str, *, language: str = "en", device: str = "cpu"):
        loaded = load_whisper(model, device)
        self.transcriber = WhisperTranscriber.from_loaded(*loaded, language)
        self.aligner = WhisperAligner.from_loaded(*loaded, language)

    def transcribe(self, states: EncoderStates) -> list[str]:
        """Return the transcript of every row; it does not depend on the others."""
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
