"""Transcripts and word times from the tokenizer's own encoder pass.

The tokenizer's encoder is that of a Whisper model. Where transcript or times are
wanted of the same model, its decoder reads the states that are there already.

Symbols: B batch, T frames, W words.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from espnet_taste.align.transcripts import WhisperTranscriber
from espnet_taste.align.whisper_dtw import WhisperAligner, load_whisper
from espnet_taste.tokenizer.states import EncoderStates


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
        """Return the transcript of every row.

        A row's does not depend on the others: Whisper's decoder knows no padding of
        its input, so rows of trimmed audio are read one by one.
        """
        lengths = states.lengths.tolist()
        if min(lengths) == states.keys.size(1):
            return self.transcriber.transcribe_states(states.keys)
        return [
            self.transcriber.transcribe_states(keys[None, :length])[0]
            for keys, length in zip(states.keys, lengths, strict=True)
        ]

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
        return self.aligner.align_states(keys[None], audio, words).times
