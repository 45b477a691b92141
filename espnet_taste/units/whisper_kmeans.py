"""Speech units: k-means classes of a shallow Whisper layer, learned on the corpus.

The offline stand-in for S3 units: no weights but Whisper's are needed. Features are
freed from the utterance's mean (mostly speaker and channel), reduced by PCA and
clustered; at 25 Hz two neighbouring frames make one unit.

Symbols: N samples, T encoder frames, S units, d width after PCA, K classes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from espnet_taste.layers.kmeans import lloyd, nearest_means, spread_start
from espnet_taste.layers.precision import in_float64
from espnet_taste.units.contracts import (
    AbsUnitExtractor,
    require_same_weights,
    too_short,
    write_units,
)
from espnet_taste.units.unit_encoder import frames_per_unit
from espnet_taste.units.whisper_features import WhisperFeatures
from espnet_taste.weights import fingerprint, resolve
from espnet_taste.weights.strict import read_weights

# k-means++ passes over its vectors once a class; a sample starts as well.
START_SAMPLE = 20_000


@dataclass(frozen=True)
class WhisperKMeansConfig:
    """What the units are made of; every field is a key of ``units_conf``."""

    model: str = "openai/whisper-tiny.en"  # weight name or folder
    layer: int = 3  # encoder layers to run
    num_units: int = 1024  # classes K
    unit_rate_hz: float = 50.0  # 50, 25, ...: 50 divided by a whole number
    remove_mean: bool = True  # subtract the utterance's mean feature
    pca_dim: int = 64  # d
    whiten: bool = False  # scale the principal components to variance 1
    max_frames: int = 200_000  # frames of the corpus that are clustered
    num_iterations: int = 30  # Lloyd iterations
    seed: int = 0

    @property
    def frames_per_unit(self) -> int:
        """Encoder frames that one unit stands for.

        Raises:
            ValueError: If the rate does not divide 50 Hz.
        """
        return frames_per_unit(self.unit_rate_hz)


class WhisperKMeans(AbsUnitExtractor):
    """Extractor with learned classes.

    Args:
        config: Settings.
        features: Frame features, (N,) array -> (T, D) tensor.
        codebook: Tensors ``mean`` (D'), ``components`` (D', d) and ``means`` (K, d),
            where D' is D times the frames a unit stands for.
        model_sha256: Digest of the Whisper weights the classes belong to.
    """

    def __init__(
        self,
        config: WhisperKMeansConfig,
        features: WhisperFeatures,
        codebook: dict[str, Tensor],
        model_sha256: str = "",
    ):
        self.config = config
        self.features = features
        self.codebook = codebook
        self.model_sha256 = model_sha256

    @classmethod
    def learn(
        cls, config: WhisperKMeansConfig, speech: Iterable[np.ndarray]
    ) -> "WhisperKMeans":
        """Learn the classes.

        Args:
            config: Settings.
            speech: Waveforms at 16 kHz, each (N,), float32, in random order: they
                are read until ``max_frames`` frames are there.

        Raises:
            ValueError: If there are fewer frames than classes or components.
        """
        folder = resolve(config.model)
        features = WhisperFeatures(folder, config.layer)
        collected, count = [], 0
        for waveform in speech:
            collected.append(stack_frames(features(waveform), config))
            count += len(collected[-1])
            if count * config.frames_per_unit >= config.max_frames:
                break
        codebook = fit_codebook(collected, config)
        return cls(config, features, codebook, fingerprint(folder))

    @property
    def num_units(self) -> int:
        """Number of classes."""
        return self.config.num_units

    @property
    def unit_rate_hz(self) -> float:
        """Units per second."""
        return self.config.unit_rate_hz

    def to(self, device: str) -> Self:
        """Compute on a device; see ``AbsUnitExtractor``."""
        self.features.to(device)
        self.codebook = {name: part.to(device) for name, part in self.codebook.items()}
        return self

    def extract(self, speech: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the units of utterances; see ``AbsUnitExtractor``."""
        return [self._extract_one(waveform) for waveform in speech]

    def _extract_one(self, speech: np.ndarray) -> np.ndarray:
        frames = stack_frames(self.features(speech), self.config)
        if len(frames) == 0:
            raise too_short(len(speech), self.unit_rate_hz)
        vectors = (frames - self.codebook["mean"]) @ self.codebook["components"]
        return nearest_means(vectors, self.codebook["means"]).cpu().numpy()

    def unit_vectors(self) -> Tensor:
        """Return the means of the classes; see ``AbsUnitExtractor``."""
        return self.codebook["means"].cpu().clone()

    def save(self, folder: Path) -> None:
        """Write what ``load`` needs; see ``AbsUnitExtractor``."""
        facts = {
            "units": "whisper_kmeans",
            "num_units": self.num_units,
            "unit_rate_hz": self.unit_rate_hz,
            "units_conf": asdict(self.config),
            "model_sha256": self.model_sha256,
        }
        write_units(folder, self.codebook, facts)

    @classmethod
    def load(cls, folder: Path) -> "WhisperKMeans":
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: If a file is absent.
            ValueError: If the Whisper weights are not those of the training.
        """
        folder = Path(folder)
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = read_units_conf(facts["units_conf"])
        weights = resolve(config.model)
        found = fingerprint(weights)
        require_same_weights(folder, config.model, found, facts["model_sha256"])
        codebook = read_weights(folder / "units.safetensors")
        return cls(config, WhisperFeatures(weights, config.layer), codebook, found)


def read_units_conf(values: dict) -> WhisperKMeansConfig:
    """Check and read ``units_conf``; all unknown keys are named."""
    known = {item.name for item in fields(WhisperKMeansConfig)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"units_conf: unknown {unknown}; known are {sorted(known)}")
    config = WhisperKMeansConfig(**values)
    if config.num_units < 2 or config.pca_dim < 1:
        raise ValueError(
            "units_conf: num_units must be at least 2 and pca_dim at least 1, got "
            f"{config.num_units} and {config.pca_dim}"
        )
    _ = config.frames_per_unit  # raises for a rate that cannot be
    return config


def stack_frames(frames: Tensor, config: WhisperKMeansConfig) -> Tensor:
    """Centre an utterance's frames and join neighbours, (T, D) -> (S, D')."""
    if config.remove_mean:
        frames = frames - frames.mean(dim=0)
    size = config.frames_per_unit
    num_units = len(frames) // size
    return frames[: num_units * size].reshape(num_units, -1)


def fit_codebook(
    collected: Sequence[Tensor], config: WhisperKMeansConfig
) -> dict[str, Tensor]:
    """Fit PCA and k-means, a function of the frames and the seed alone.

    Args:
        collected: Frames of utterances, each (S, D'), float32.
        config: Settings.

    Returns:
        The tensors that ``WhisperKMeans`` takes.

    Raises:
        ValueError: If there are fewer frames than classes or components.
    """
    frames = torch.cat(list(collected)) if collected else torch.empty(0, 0)
    if len(frames) < max(config.num_units, config.pca_dim):
        raise ValueError(
            f"{len(frames)} units' worth of speech cannot make {config.num_units} "
            f"classes in {config.pca_dim} dimensions; lower num_units or add speech"
        )
    mean = frames.mean(dim=0)
    components = principal_components(frames - mean, config.pca_dim, config.whiten)
    vectors = (frames - mean) @ components
    generator = torch.Generator().manual_seed(config.seed)
    sample = torch.randperm(len(vectors), generator=generator)
    sample = sample[: max(START_SAMPLE, config.num_units)]
    start = spread_start(vectors[sample], config.num_units, generator)
    means, _ = lloyd(vectors, start, config.num_iterations)
    return {"mean": mean, "components": components, "means": means}


def principal_components(centred: Tensor, dim: int, whiten: bool) -> Tensor:
    """Return the first principal directions of centred rows, (N, D) -> (D, dim)."""
    device, centred = centred.device, in_float64(centred)
    covariance = centred.T @ centred / len(centred)
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    chosen = vectors[:, -dim:].flip(1)
    # The sign of a component is free; fixed, so that files can be compared.
    peak = chosen.gather(0, chosen.abs().argmax(0, keepdim=True))
    chosen = chosen * peak.sign()
    if whiten:
        chosen = chosen / values[-dim:].flip(0).clamp(min=1e-8).sqrt()
    return chosen.float().to(device)
