"""Spoken prompts continued by a spoken LM, to audio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from espnet_taste.data.kaldi import read_scp_arrays
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.speech import (
    DecodeOptions,
    Speech,
    UnitSynthesizer,
    row_seeds,
)
from espnet_taste.pipeline.tokenizer import TokenizerInference


@dataclass(frozen=True)
class Parts:
    """The three trained models that a spoken continuation needs."""

    slm: SpokenLMInference
    tokenizer: TokenizerInference
    synthesize: UnitSynthesizer


class SpeechContinuer:
    """Continue the first words of prepared utterances.

    Prompt and continuation are synthesised together, in the prompt's voice.

    Args:
        parts: Trained models; the codes must be those of the tokenizer.
        data_dir: Folder of the alignment stage.
        codes_dir: Folder of the stage extract_codes.
        features_dir: Folder of the feature stage.
        options: How to decode.
    """

    def __init__(
        self,
        parts: Parts,
        data_dir: Path,
        codes_dir: Path,
        features_dir: Path,
        options: DecodeOptions,
    ):
        self.parts = parts
        self.options = options
        self.coded = parts.slm.open(data_dir, codes_dir)
        self.speakers = read_scp_arrays(Path(features_dir) / "spembs.scp")

    def __call__(self, keys: Sequence[str]) -> list[Speech]:
        """Continue utterances of the set."""
        num_words = self.options.prompt_words
        seeds = row_seeds(self.options.seed, keys)
        prompts = [(key, self.coded.prompt(key, num_words)) for key in keys]
        results = self.parts.slm.continue_speech(
            prompts, self.options.completion, seeds
        )
        said = [self.coded.text[key].split()[:num_words] for key in keys]
        texts = [
            " ".join([*words, *result.words])
            for words, result in zip(said, results, strict=True)
        ]
        codes = [
            np.concatenate([data["codes"], result.codes])
            for (_, data), result in zip(prompts, results, strict=True)
        ]
        speakers = [self.speakers[key] for key in keys]
        units = self.parts.tokenizer.generate_from_codes(
            texts, codes, speakers, self.options.sampling, seeds
        )
        facts = [
            {
                "prompt": " ".join(words),
                "continuation": " ".join(result.words),
                "text_was_cut": result.completion.was_cut,
                "stopped_by": unit.stopped_by,
            }
            for words, result, unit in zip(said, results, units, strict=True)
        ]
        return self.parts.synthesize([unit.units for unit in units], speakers, facts)
