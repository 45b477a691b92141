"""S3 units: the speech tokenizer v1 of CosyVoice-300M, 50 units a second.

The network comes from the package s3tokenizer, its weights from a file: the released
``speech_tokenizer_v1.onnx``, or the same tensors as safetensors. One utterance is
read at a time, so that none is heard with another's padding or length.

Symbols: N samples, M mel frames, S units.

Source: CosyVoice (arXiv:2407.05407), supervised semantic tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from espnet_taste.tokenizer.log_mel import HOP_SAMPLES, log_mel, mel_filters
from espnet_taste.types import SAMPLE_RATE_HZ
from espnet_taste.units.contracts import AbsUnitExtractor, too_short, write_units
from espnet_taste.weights.digests import sha256_of
from espnet_taste.weights.strict import read_weights, require_fit

UNIT_RATE_HZ = 50.0
FRAMES_PER_UNIT = 2
LONGEST_S = 30
# The name by which the package tells its first tokenizer from later ones.
PACKAGE_MODEL = "speech_tokenizer_v1"


class S3Units(AbsUnitExtractor):
    """Extractor of S3 units; its network is frozen and in eval mode.

    Args:
        network: ``S3Tokenizer`` of the package s3tokenizer, with its weights.
        network_conf: The sizes it was made with; empty for the released ones.
        weights_sha256: Digest of the weight file.
    """

    def __init__(
        self, network: nn.Module, network_conf: dict[str, Any], weights_sha256: str
    ):
        self.network = network.eval().requires_grad_(False)
        self.network_conf = network_conf
        self.weights_sha256 = weights_sha256
        self._filters = mel_filters(network.config.n_mels)

    @classmethod
    def open(cls, conf: dict[str, Any]) -> "S3Units":
        """Open what ``units_conf`` names.

        Args:
            conf: ``weights``, path of the ONNX or safetensors file; ``network``, the
                sizes where they are not the released ones.

        Raises:
            FileNotFoundError: If the file is absent; says where to get it.
            ValueError: If an option is unknown, the package is not installed or the
                file does not fit.
        """
        if unknown := sorted(conf.keys() - {"weights", "network"}):
            raise ValueError(
                f"units_conf: s3 has no option {unknown}; it has ['network', 'weights']"
            )
        path = Path(conf.get("weights") or PACKAGE_MODEL + ".onnx").expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no weights of the S3 tokenizer. They are not on a package "
                "index: take speech_tokenizer_v1.onnx of CosyVoice-300M and name it "
                "by 'weights' in units_conf"
            )
        sizes = dict(conf.get("network") or {})
        network = build_network(sizes)
        _load(network, read_state(path), path)
        return cls(network, sizes, sha256_of(path))

    @property
    def num_units(self) -> int:
        """Number of classes."""
        return self.network.config.n_codebook_size

    @property
    def unit_rate_hz(self) -> float:
        """Units per second."""
        return UNIT_RATE_HZ

    def to(self, device: str) -> Self:
        """Compute on a device; see ``AbsUnitExtractor``."""
        self.network.to(device)
        self._filters = self._filters.to(device)
        return self

    def extract(self, speech: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the units of utterances; see ``AbsUnitExtractor``.

        Raises:
            ValueError: If an utterance is too short, or longer than the network hears.
        """
        return [self._extract_one(waveform) for waveform in speech]

    @torch.no_grad()
    def _extract_one(self, speech: np.ndarray) -> np.ndarray:
        if len(speech) > LONGEST_S * SAMPLE_RATE_HZ:
            raise ValueError(
                f"S3 units end at {LONGEST_S} s, got "
                f"{len(speech) / SAMPLE_RATE_HZ:.1f} s; lower --max_wav_duration or "
                "cut the utterance"
            )
        if len(speech) < FRAMES_PER_UNIT * HOP_SAMPLES:
            raise too_short(len(speech), UNIT_RATE_HZ)
        device = self._filters.device
        waveform = torch.from_numpy(np.array(speech, np.float32)).to(device)
        mel = log_mel(waveform[None], self._filters).transpose(1, 2)
        units, lengths = self.network.quantize(
            mel, torch.tensor([mel.size(2)], device=device)
        )
        return units[0, : int(lengths[0])].long().cpu().numpy()

    def unit_vectors(self) -> Tensor:
        """Return the codebook; see ``AbsUnitExtractor``."""
        return self.network.quantizer.codebook.detach().cpu().float().clone()

    def save(self, folder: Path) -> None:
        """Write what ``load`` needs; see ``AbsUnitExtractor``."""
        facts = {
            "units": "s3",
            "num_units": self.num_units,
            "unit_rate_hz": self.unit_rate_hz,
            "network": self.network_conf,
            "weights_sha256": self.weights_sha256,
        }
        write_units(folder, self.network.state_dict(), facts)

    @classmethod
    def load(cls, folder: Path) -> "S3Units":
        """Read what ``save`` wrote.

        Raises:
            FileNotFoundError: If a file is absent.
            ValueError: If the package is not installed or the file does not fit.
        """
        folder = Path(folder)
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        network = build_network(facts["network"])
        path = folder / "units.safetensors"
        _load(network, read_weights(path), path)
        return cls(network, facts["network"], facts["weights_sha256"])


def _package(module: str) -> Any:
    """Import a module of the package that has the network."""
    from importlib import import_module

    try:
        return import_module(f"s3tokenizer.{module}")
    except ImportError as error:
        raise ValueError(
            "S3 units need the package s3tokenizer: install espnet-taste[s3] "
            f"({error})"
        ) from error


def build_network(sizes: dict[str, Any]) -> nn.Module:
    """Build the network with random weights.

    Args:
        sizes: Fields of the package's ``ModelConfig``; what is absent is as released.

    Raises:
        ValueError: If the package is not installed or knows no such size.
    """
    model = _package("model")
    known = model.ModelConfig.__dataclass_fields__
    if unknown := sorted(sizes.keys() - known.keys()):
        raise ValueError(f"network: unknown {unknown}; known are {sorted(known)}")
    return model.S3Tokenizer(PACKAGE_MODEL, model.ModelConfig(**sizes))


def read_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of an ONNX or a safetensors file under the package's names.

    Raises:
        ValueError: If it is neither.
    """
    if path.suffix == ".safetensors":
        return read_weights(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: expected an .onnx or a .safetensors file")
    utils = _package("utils")
    from google.protobuf.message import DecodeError

    try:
        return utils.onnx2torch(str(path))
    except (DecodeError, AssertionError, AttributeError) as error:
        raise ValueError(
            f"{path}: not the ONNX file of speech_tokenizer_v1 ({error})"
        ) from error


def _load(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load tensors strictly.

    Raises:
        ValueError: If names or shapes do not fit the network.
    """
    require_fit(network.state_dict(), state, path, "S3 tokenizer")
    network.load_state_dict(state)
