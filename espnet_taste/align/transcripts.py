"""Transcripts for corpora that have none, from a Whisper model."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from espnet_taste.align.whisper_dtw import WholeWhisper
from espnet_taste.types import SAMPLE_RATE_HZ

# What transformers says of the calls that its own Whisper makes. Its prefix has no
# padding that a mask could hide.
_OWN_CALLS = ("generation-related arguments", "attention mask is not set with a batch")


# Whisper hears 30 s, but stops early when they are full of speech: tiny.en heard nine
# pieces of 29.8 s whole, and of 30.0 s six in part, one of them as a single word.
FULL_S = 29.5
PAUSE_S = 0.2  # of quiet in which longer audio is cut


def _concerns_caller(record: logging.LogRecord) -> bool:
    return not any(words in record.getMessage() for words in _OWN_CALLS)


class WhisperTranscriber(WholeWhisper):
    """Writes down what is said, in batches, by greedy search; see ``WholeWhisper``."""

    def _build(self, *parts: Any) -> None:
        super()._build(*parts)
        logging.getLogger("transformers.generation.utils").addFilter(_concerns_caller)
        self.options = {"num_beams": 1, "do_sample": False}
        if self.multilingual:
            self.options |= {"language": self.language, "task": self.task}

    def transcribe(self, audios: Sequence[np.ndarray]) -> list[str]:
        """Return the transcript of each audio, (N,) float32 at 16 kHz, <= 30 s.

        What is longer than ``FULL_S`` is heard in two parts.
        """
        import torch

        parts = [
            in_halves(audio) if len(audio) > FULL_S * SAMPLE_RATE_HZ else [audio]
            for audio in audios
        ]
        mel = self.features(
            [part for row in parts for part in row],
            sampling_rate=SAMPLE_RATE_HZ,
            return_tensors="pt",
        )
        with torch.no_grad():
            ids = self.whisper.generate(
                mel.input_features.to(self.whisper.device, self.whisper.dtype),
                **self.options,
            )
        texts = iter(self._texts(ids))
        return [" ".join(next(texts) for _ in row).strip() for row in parts]

    def transcribe_states(self, states: Any) -> list[str]:
        """Return the transcripts of last states of this model's own encoder.

        Args:
            states: (B, T, D) tensor, T the frames of Whisper's window.
        """
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        encoded = BaseModelOutput(states.to(self.whisper.dtype))
        with torch.no_grad():
            ids = self.whisper.generate(encoder_outputs=encoded, **self.options)
        return self._texts(ids)

    def _texts(self, ids: Any) -> list[str]:
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        # A line break inside would break the table that the text goes to.
        return [" ".join(text.split()) for text in texts]


def in_halves(audio: np.ndarray) -> list[np.ndarray]:
    """Cut audio, (N,) at 16 kHz, where it is quietest between 40 and 60 % of it."""
    size = round(PAUSE_S * SAMPLE_RATE_HZ)
    first, last = round(0.4 * len(audio)), round(0.6 * len(audio)) - size
    power = np.cumsum(np.square(audio[first : last + size], dtype=np.float64))
    quiet = first + int(np.argmin(power[size:] - power[:-size])) + size // 2
    return [audio[:quiet], audio[quiet:]]
