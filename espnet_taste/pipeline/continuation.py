"""Spoken prompts continued by a spoken LM, to audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_taste.data.audio import read_audio
from espnet_taste.data.kaldi import read_scp_arrays, read_table
from espnet_taste.pipeline.encoding import TasteEncoder
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.speech import (
    DecodeOptions,
    Speech,
    UnitSynthesizer,
    row_seeds,
)
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.pipeline.tokens import nearest_end
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.words import split_words


@dataclass(frozen=True)
class Parts:
    """The three trained models that a spoken continuation needs."""

    slm: SpokenLMInference
    tokenizer: TokenizerInference
    synthesize: UnitSynthesizer


class SpeechContinuer:
    """Continue the first words of prepared utterances.

    The codes of a prompt are made of its audio alone: Whisper's encoder sees all that
    it is given, and codes of the whole utterance would tell what follows. Prompt and
    continuation are synthesised together, in the prompt's voice.

    Args:
        parts: Trained models; the tokenizer is the one of the spoken LM's codes.
        data_dir: Folder of the alignment stage.
        features_dir: Folder of the feature stage.
        options: How to decode.

    Raises:
        FileNotFoundError: If it is not known when the words were said.
    """

    def __init__(
        self, parts: Parts, data_dir: Path, features_dir: Path, options: DecodeOptions
    ):
        self.parts = parts
        self.options = options
        self.data_dir = Path(data_dir)
        self.encoder = TasteEncoder(parts.tokenizer, speaker_model="", models={})
        self.text = read_table(self.data_dir / "text")
        self.wav = read_table(self.data_dir / "wav.scp")
        self.times = read_scp_arrays(self.data_dir / "word_times.scp")
        self.speakers = read_scp_arrays(Path(features_dir) / "spembs.scp")

    def __call__(self, keys: Sequence[str]) -> list[Speech]:
        """Continue utterances of the set."""
        said = [self._first_words(key) for key in keys]
        ends_s = [self._end_s(key, len(words)) for key, words in zip(keys, said)]
        waves = [self._cut(key, end_s) for key, end_s in zip(keys, ends_s)]
        heard = self.encoder.word_codes(waves, said)
        seeds = row_seeds(self.options.seed, keys)
        results = self.parts.slm.continue_speech(
            [
                self.parts.slm.prompt(key, words, codes)
                for key, words, codes in zip(keys, said, heard, strict=True)
            ],
            self.options.completion,
            seeds,
        )
        texts = [
            " ".join([*words, *result.words])
            for words, result in zip(said, results, strict=True)
        ]
        codes = [
            np.concatenate([prompt, result.codes])
            for prompt, result in zip(heard, results, strict=True)
        ]
        speakers = [self.speakers[key] for key in keys]
        sampling = self.options.sampling or self.parts.tokenizer.sampling
        units = self.parts.tokenizer.generate_from_codes(
            texts, codes, speakers, sampling, seeds
        )
        facts = [
            {
                "prompt": " ".join(words),
                "prompt_s": round(end_s, 3),
                "continuation": " ".join(result.words),
                "text_was_cut": result.completion.was_cut,
                "stopped_by": unit.stopped_by,
            }
            for words, end_s, result, unit in zip(
                said, ends_s, results, units, strict=True
            )
        ]
        return self.parts.synthesize([unit.units for unit in units], speakers, facts)

    def _first_words(self, key: str) -> list[str]:
        words = split_words(self.text[key])
        if self.options.prompt_s is None:
            return words[: self.options.prompt_words]
        return words[: nearest_end(self.times[key], self.options.prompt_s)]

    def _end_s(self, key: str, num_words: int) -> float:
        """Return where the prompt ends: with its last word."""
        return float(self.times[key][num_words - 1, 1])

    def _cut(self, key: str, end_s: float) -> np.ndarray:
        wave = read_audio(self.wav[key], folder=self.data_dir)
        return wave[: max(1, round(end_s * SAMPLE_RATE_HZ))]
