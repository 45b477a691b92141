"""From units, or text and codes, to audio.

Symbols: S units, N samples.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from espnet_taste.data.kaldi import read_scp_arrays
from espnet_taste.data.settings import build, read_settings
from espnet_taste.decoder.contracts import UnitSampling
from espnet_taste.decoder.vocoder import MODEL_FILE, AbsVocoder, build_vocoder
from espnet_taste.pipeline.devices import find_device
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.sampling import Sampler
from espnet_taste.slm.generation import CompletionSettings


@dataclass(frozen=True)
class DecodeOptions:
    """What ``decode.yaml`` may say."""

    batch_size: int = 8  # utterances
    seed: int = 1986
    sampling: UnitSampling | None = None  # None: as fits the tokenizer
    prompt_words: int = 6  # words of a spoken prompt
    prompt_s: float | None = None  # or seconds, to the word end nearest to them
    max_prompts: int = 0  # prompts of a set; 0 = all
    completion: CompletionSettings = field(default_factory=CompletionSettings)

    def __post_init__(self) -> None:
        """Check the length of prompts."""
        if self.prompt_words < 1:
            raise ValueError(f"prompt_words must be above 0, got {self.prompt_words}")
        if self.prompt_s is not None and not self.prompt_s > 0:
            raise ValueError(f"prompt_s must be above 0, got {self.prompt_s}")

    @classmethod
    def read(cls, path: Path | None) -> "DecodeOptions":
        """Read the options from YAML; None gives the defaults.

        Raises:
            FileNotFoundError: If the file is absent.
            ValueError: If it is no mapping, a key is unknown or a value is out of its
                range.
        """
        conf = {} if path is None else read_settings(path)
        where = str(path)
        completion = conf.pop("completion", None) or {}
        if isinstance(completion, dict):
            # A name without a value leaves the default, as everywhere in the file.
            completion = {k: v for k, v in completion.items() if v is not None}
            for name in completion.keys() & {"text", "codes"}:
                completion[name] = build(Sampler, completion[name], where)
        sampling = conf.pop("sampling", None)
        sampling = build(UnitSampling, sampling, where) if sampling else None
        completion = build(CompletionSettings, completion, where)
        nested = {"sampling": sampling, "completion": completion}
        return build(cls, conf | nested, where)


@dataclass(frozen=True)
class Speech:
    """Audio made for one utterance and what the report says about it."""

    audio: np.ndarray  # (N,) float32
    sample_rate_hz: int
    facts: dict[str, Any]

    def save(self, path: str | Path) -> None:
        """Write a sound file; the suffix says which kind (.wav, .flac, .ogg).

        Its folder is made if needed.
        """
        import soundfile

        Path(path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, self.audio, self.sample_rate_hz)


def row_seeds(seed: int, keys: Sequence[str]) -> list[int]:
    """Return seeds that depend on the utterances, not on batches or parallel jobs."""
    return [(seed + zlib.crc32(key.encode())) % 2**31 for key in keys]


class UnitSynthesizer:
    """Units and speaker embeddings to audio.

    Args:
        vocoder: A vocoder.
        device: Its device.
    """

    def __init__(self, vocoder: AbsVocoder, device: str = "cpu"):
        self.vocoder = vocoder
        self.device = find_device(device)

    @torch.no_grad()
    def __call__(
        self,
        units: Sequence[np.ndarray],
        speakers: Sequence[np.ndarray],
        facts: Sequence[dict[str, Any]],
    ) -> list[Speech]:
        """Synthesise a batch.

        Args:
            units: Units an utterance, each (S,), int64.
            speakers: Speaker embeddings, each (speaker_dim,), float32.
            facts: What the report says about each.
        """
        lengths = torch.tensor([len(row) for row in units])
        padded = torch.zeros(len(units), int(lengths.max()), dtype=torch.long)
        for row, values in zip(padded, units, strict=True):
            row[: len(values)] = torch.from_numpy(values)
        speaker = torch.from_numpy(np.stack(speakers)).float()
        waves = self.vocoder(
            padded.to(self.device), lengths.to(self.device), speaker.to(self.device)
        )
        rate = self.vocoder.sample_rate_hz
        return [
            Speech(wave.cpu().numpy(), rate, {"num_units": len(row), **fact})
            for wave, row, fact in zip(waves, units, facts, strict=True)
        ]


class SpeechReconstructor:
    """Text and codes of prepared utterances to audio.

    Args:
        model_file: Checkpoint of a speech tokenizer.
        vocoder_dir: Folder of a trained vocoder.
        train_config: Config of the tokenizer; None for the one beside it.
        options: How to decode.
        device: Torch device.
        vocoder_file: Checkpoint in the vocoder's folder.
    """

    def __init__(
        self,
        model_file: str | Path,
        vocoder_dir: str | Path,
        train_config: str | Path | None = None,
        options: DecodeOptions = DecodeOptions(),
        device: str = "cpu",
        *,
        vocoder_file: str = MODEL_FILE,
    ):
        self.tokenizer = TokenizerInference(model_file, train_config, device)
        vocoder = build_vocoder(vocoder_dir, model_file=vocoder_file, device=device)
        self.synthesize = UnitSynthesizer(vocoder, device)
        self.options = options

    @staticmethod
    def from_pretrained(
        model_tag: str | Path, *, device: str = "cpu", **options: Any
    ) -> "SpeechReconstructor":
        """Open an experiment folder, a packed file, or a tag of the model zoo.

        Args:
            model_tag: Which model.
            device: Torch device.
            **options: Fields of ``DecodeOptions``.
        """
        from espnet_taste.pipeline.packed import find_files

        files = find_files(model_tag, need_slm=False)
        return files.reconstructor(DecodeOptions(**options), device)

    def open(self, data_dir: Path, features_dir: Path) -> "SpeechReconstructor":
        """Open a prepared set; then call with its keys."""
        self.utterances = self.tokenizer.open(data_dir, features_dir)
        return self

    def __call__(self, keys: Sequence[str]) -> list[Speech]:
        """Reconstruct utterances of the opened set."""
        items = [(key, self.utterances[key]) for key in keys]
        seeds = row_seeds(self.options.seed, keys)
        sampling = self.options.sampling or self.tokenizer.sampling
        results = self.tokenizer.generate(items, sampling, seeds)
        return self.synthesize(
            [result.units for result in results],
            [data["spembs"] for _, data in items],
            [{"stopped_by": result.stopped_by} for result in results],
        )


class UnitTopline:
    """The true units of prepared utterances to audio: what no decoder can pass.

    Args:
        vocoder_dir: Folder of a trained vocoder.
        features_dir: Folder of the feature stage.
        device: Torch device.
    """

    def __init__(
        self, vocoder_dir: str | Path, features_dir: str | Path, device: str = "cpu"
    ):
        find_device(device)  # before the vocoder is put there
        vocoder = build_vocoder(vocoder_dir, device=device)
        self.synthesize = UnitSynthesizer(vocoder, device)
        self.units = read_scp_arrays(Path(features_dir) / "units.scp")
        self.speakers = read_scp_arrays(Path(features_dir) / "spembs.scp")

    def __call__(self, keys: Sequence[str]) -> list[Speech]:
        """Synthesise utterances."""
        return self.synthesize(
            [self.units[key].astype(np.int64) for key in keys],
            [self.speakers[key] for key in keys],
            [{"stopped_by": "end"}] * len(keys),
        )
