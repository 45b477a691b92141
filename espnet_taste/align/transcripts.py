"""Transcripts for corpora that have none, from a Whisper model."""

from collections.abc import Sequence

import numpy as np

from espnet_taste.align.whisper_dtw import load_whisper
from espnet_taste.types import SAMPLE_RATE_HZ


class WhisperTranscriber:
    """Writes down what is said, in batches, by greedy search.

    Args:
        model: Name or folder, anything ``espnet_taste.weights.resolve`` knows.
        language: Language of the speech, for multilingual models.
        device: Torch device.
    """

    def __init__(
        self,
        model: str = "openai/whisper-tiny.en",
        *,
        language: str = "en",
        device: str = "cpu",
    ):
        self.whisper, self.tokenizer, self.features = load_whisper(model, device)
        self.options = {}
        if getattr(self.whisper.generation_config, "is_multilingual", False):
            self.options = {"language": language, "task": "transcribe"}

    def transcribe(self, audios: Sequence[np.ndarray]) -> list[str]:
        """Return the transcript of each audio, (N,) float32 at 16 kHz, <= 30 s."""
        import torch

        mel = self.features(
            list(audios), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
        )
        with torch.no_grad():
            ids = self.whisper.generate(
                mel.input_features.to(self.whisper.device, self.whisper.dtype),
                num_beams=1,
                do_sample=False,
                **self.options,
            )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        # A line break inside would break the table that the text goes to.
        return [" ".join(text.split()) for text in texts]
