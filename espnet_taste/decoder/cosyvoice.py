"""S3 units to a waveform as released: CosyVoice-300M's flow matching, then HiFT.

Opened from a folder, in the first of these forms that it has:

* the file that is asked for, or ``voice_generator.pth``: one PyTorch checkpoint;
* ``model.safetensors``: the same tensors;
* ``flow.pt`` and ``hift.pt``, CosyVoice-300M's own, or both as ``.safetensors``.

Names of tensors in one file begin with ``flow.`` and ``hift.``; they are those of the
released generator, unchanged. Checkpoints are only read as tensors, never as code.

Symbols: B batch, S units, C mel channels, N samples.

Source: TASTE (arXiv:2504.07053), voice generator.
"""

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from espnet_taste.decoder.contracts import AbsVocoder
from espnet_taste.decoder.flow import FlowConfig, FlowMatching, row_noise
from espnet_taste.decoder.hift import HiftConfig, HiftGenerator, row_draws
from espnet_taste.weights.strict import read_weights, require_fit

WHOLE_FILES = ("voice_generator.pth", "model.safetensors")
PARTS = ("flow", "hift")
PART_SUFFIXES = (".safetensors", ".pt")
KEYS = {"vocoder", "weights", "flow_conf", "hift_conf", "seed"}

_Config = TypeVar("_Config", FlowConfig, HiftConfig)


class CosyVoiceVocoder(AbsVocoder):
    """Flow matching and HiFT, with random numbers that belong to the utterance.

    Noise comes from the seed and the row's own units: the same units sound the same
    in any batch, and different ones do not share their noise.

    Args:
        flow: Units to mel frames.
        hift: Mel frames to a waveform.
        seed: Chooses the noise.

    Raises:
        ValueError: If the two do not speak of the same mel frames.
    """

    def __init__(self, flow: FlowMatching, hift: HiftGenerator, seed: int = 0):
        super().__init__()
        ours, theirs = (
            (part.num_mels, part.sample_rate_hz, part.hop_size)
            for part in (flow.config, hift.config)
        )
        if ours != theirs:
            raise ValueError(
                "flow_conf and hift_conf must agree on num_mels, sample_rate_hz and "
                f"samples a frame, got {ours} and {theirs}"
            )
        self.flow = flow
        self.hift = hift
        self.seed = seed
        self._freeze()

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveforms."""
        return self.hift.config.sample_rate_hz

    @torch.no_grad()
    def forward(
        self, units: Tensor, unit_lengths: Tensor, speaker: Tensor
    ) -> list[Tensor]:
        """Synthesise; see ``AbsVocoder``.

        Raises:
            ValueError: If units or speakers are not those the flow was trained with.
        """
        if speaker.size(1) != self.flow.config.speaker_dim:
            raise ValueError(
                f"the flow needs speaker embeddings of {self.flow.config.speaker_dim} "
                f"values, got {speaker.size(1)}; extract them with CAM++"
            )
        self._require_units(units, unit_lengths, self.flow.config.num_units)
        return self._speak(units, unit_lengths, speaker)

    def _synthesise(
        self, units: Tensor, lengths: Tensor, speaker: Tensor
    ) -> list[Tensor]:
        """Synthesise rows of at least one unit."""
        generators = self._generators(units, lengths)
        frames = self.flow.config.frames(lengths)
        noise = row_noise(generators, frames.tolist(), self.flow.config.num_mels)
        mel = self.flow(units, lengths, speaker, noise.to(speaker))
        samples = (frames * self.hift.config.hop_size).tolist()
        draws = row_draws(generators, samples, self.hift.m_source.num_sines)
        speech = self.hift(mel, frames, *(draw.to(mel) for draw in draws))
        rows = zip(speech, samples, strict=True)
        return [row[:count].float() for row, count in rows]

    def _generators(self, units: Tensor, lengths: Tensor) -> list[torch.Generator]:
        """Return a generator a row, on CPU: all devices get the same numbers."""
        generators = []
        counts = lengths.tolist()
        for row, count in zip(units.cpu().numpy(), counts, strict=True):
            content = row[:count].astype("<i8").tobytes()
            key = self.seed.to_bytes(8, "little", signed=True)
            digest = hashlib.blake2b(content, digest_size=8, key=key).digest()
            seed = int.from_bytes(digest, "little", signed=True)
            generators.append(torch.Generator().manual_seed(seed))
        return generators


def read_part_config(kind: type[_Config], name: str, values: dict) -> _Config:
    """Read ``flow_conf`` or ``hift_conf``; what is absent keeps its released value.

    Raises:
        ValueError: If a key is unknown; all of them are named.
    """
    known = {item.name for item in fields(kind)}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{name}: unknown {unknown}; known are {sorted(known)}")
    plain = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in values.items()
    }
    return kind(**plain)


def build_cosyvoice(config: dict[str, Any]) -> CosyVoiceVocoder:
    """Build the modules of a vocoder's YAML file, their weights yet random.

    Raises:
        ValueError: If a key is unknown or the settings contradict one another.
    """
    if unknown := sorted(config.keys() - KEYS):
        raise ValueError(
            f"vocoder cosyvoice: unknown {unknown}; known are {sorted(KEYS)}"
        )
    flow = read_part_config(FlowConfig, "flow_conf", config.get("flow_conf") or {})
    hift = read_part_config(HiftConfig, "hift_conf", config.get("hift_conf") or {})
    return CosyVoiceVocoder(
        FlowMatching(flow), HiftGenerator(hift), config.get("seed", 0)
    )


def open_cosyvoice(
    folder: Path, config: dict[str, Any], model_file: str
) -> CosyVoiceVocoder:
    """Open flow and HiFT.

    Args:
        folder: Folder of the config.
        config: Its contents; ``weights`` names another folder for the tensors.
        model_file: Checkpoint to look for first.

    Raises:
        FileNotFoundError: If there are no weights; all accepted files are named.
        ValueError: If config or weights do not fit.
    """
    with torch.device("meta"):
        vocoder = build_cosyvoice(config)
    source = folder
    if config.get("weights") and not (folder / model_file).is_file():
        source = Path(config["weights"]).expanduser()
    state = read_generator(source, model_file)
    require_fit(vocoder.state_dict(), state, source, "flow and HiFT")
    state = {name: value.float() for name, value in state.items()}
    vocoder.load_state_dict(state, assign=True)
    vocoder.requires_grad_(False)
    return vocoder


def read_generator(folder: Path, model_file: str) -> dict[str, Tensor]:
    """Read the tensors of a folder, their names beginning with ``flow.``, ``hift.``.

    Args:
        folder: Where they lie.
        model_file: One file to look for before those of the module's docstring.

    Raises:
        FileNotFoundError: If the folder has none of the forms.
        ValueError: If a checkpoint is damaged or holds code.
    """
    for name in (model_file, *WHOLE_FILES):
        if (folder / name).is_file():
            return read_weights(folder / name)
    for suffix in PART_SUFFIXES:
        paths = {part: folder / f"{part}{suffix}" for part in PARTS}
        if all(path.is_file() for path in paths.values()):
            return {
                f"{part}.{name}": value
                for part, path in paths.items()
                for name, value in read_weights(path).items()
            }
    raise FileNotFoundError(
        f"{folder}: no weights of CosyVoice's flow and HiFT. They are not on a package "
        "index: put voice_generator.pth of MediaTek-Research/Llama-1B-TASTE-V0, or "
        "flow.pt and hift.pt of CosyVoice-300M, there (safetensors are taken too), or "
        "name their folder by 'weights' in the YAML file of the vocoder"
    )
