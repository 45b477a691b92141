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
        """Return the transcript of each audio, (N,) float32 at 16 kHz, <= 30 s."""
        import torch

        mel = self.features(
            list(audios), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
        )
        with torch.no_grad():
            ids = self.whisper.generate(
                mel.input_features.to(self.whisper.device, self.whisper.dtype),
                **self.options,
            )
        return self._texts(ids)

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
