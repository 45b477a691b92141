"""From units to a waveform: the choices of YAML, and how they open.

A vocoder folder is what its training leaves: ``config.yaml`` names the kind
(``vocoder: unit_to_mel``) and its parts, a checkpoint holds what was trained.
Pretrained parts are named in the config and come from the weight resolver.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from espnet_taste.decoder.contracts import AbsVocoder
from espnet_taste.decoder.cosyvoice import open_cosyvoice
from espnet_taste.decoder.griffin_lim import GriffinLim
from espnet_taste.decoder.hifigan import load_hifigan
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.layers.precision import amp_dtype_of, autocast
from espnet_taste.weights import resolve
from espnet_taste.weights.strict import read_weights, require_fit

MODEL_FILE = "valid.loss.best.pth"
# Prefix of the acoustic model's names in the checkpoint of its ESPnet task.
TRAINED_PART = "unit_to_mel."


class UnitToMelVocoder(AbsVocoder):
    """Units to log-mel frames to a waveform.

    Args:
        unit_to_mel: Trained acoustic model.
        mel_vocoder: ``HifiGanGenerator`` or ``GriffinLim``.
        amp_dtype: "bfloat16" to generate the waveform under autocast: three to four
            times faster on CPUs that have it, with an error of HiFi-GAN 37 dB below
            the speech; None for float32.

    Raises:
        ValueError: If ``amp_dtype`` is unknown.
    """

    def __init__(
        self,
        unit_to_mel: UnitToMel,
        mel_vocoder: nn.Module,
        amp_dtype: str | None = None,
    ):
        super().__init__()
        self.amp_dtype = amp_dtype_of(amp_dtype)
        self.unit_to_mel = unit_to_mel
        self.mel_vocoder = mel_vocoder
        self._freeze()

    @property
    def sample_rate_hz(self) -> int:
        """Rate of the waveforms."""
        return self.mel_vocoder.sample_rate_hz

    @torch.no_grad()
    def forward(
        self, units: Tensor, unit_lengths: Tensor, speaker: Tensor
    ) -> list[Tensor]:
        """Synthesise; see ``AbsVocoder``."""
        self._require_units(units, unit_lengths, self.unit_to_mel.num_units)
        return self._speak(units, unit_lengths, speaker)

    def _synthesise(
        self, units: Tensor, lengths: Tensor, speaker: Tensor
    ) -> list[Tensor]:
        """Synthesise rows of at least one unit."""
        mel = self.unit_to_mel(units, lengths, speaker)
        frames = self.unit_to_mel.mel_lengths(lengths)
        with autocast(mel.device, self.amp_dtype):
            speech = self.mel_vocoder(mel, frames)
        counts = (frames * self.mel_vocoder_hop).tolist()
        return [row[:count].float() for row, count in zip(speech, counts, strict=True)]

    @property
    def mel_vocoder_hop(self) -> int:
        """Samples a mel frame stands for."""
        config = getattr(self.mel_vocoder, "config", self.mel_vocoder)
        return config.mel.hop_size


def open_mel_vocoder(name: str, conf: dict[str, Any]) -> nn.Module:
    """Open what turns mel frames into a waveform.

    Args:
        name: ``hifigan`` or ``griffin_lim``.
        conf: Options; ``model`` names the weights of a HiFi-GAN.

    Raises:
        ValueError: If name or options are unknown.
        FileNotFoundError: If the weights cannot be had.
    """
    kinds = {"hifigan": {"model"}, "griffin_lim": {"num_iterations"}}
    if name not in kinds:
        raise ValueError(f"mel_vocoder: '{name}' is not one of {sorted(kinds)}")
    if unknown := sorted(conf.keys() - kinds[name]):
        raise ValueError(
            f"mel_vocoder_conf: {name} has no option {unknown}; "
            f"it has {sorted(kinds[name])}"
        )
    if name == "griffin_lim":
        return GriffinLim(**conf)
    return load_hifigan(resolve(conf.get("model", "hifigan/universal-v1")))


def _open_unit_to_mel(
    folder: Path, config: dict[str, Any], model_file: str
) -> UnitToMelVocoder:
    model = UnitToMel(**config["unit_to_mel_conf"])
    path = folder / model_file
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run the stage train_vocoder first")
    state = {
        name.removeprefix(TRAINED_PART): value
        for name, value in read_weights(path).items()
        if name.startswith(TRAINED_PART)
    }
    require_fit(model.state_dict(), state, path, "unit-to-mel model (config.yaml)")
    model.load_state_dict(state)
    mel_vocoder = open_mel_vocoder(
        config.get("mel_vocoder", "hifigan"), config.get("mel_vocoder_conf") or {}
    )
    return UnitToMelVocoder(model, mel_vocoder, config.get("vocoder_amp_dtype"))


VOCODERS: dict[str, Callable[[Path, dict[str, Any], str], AbsVocoder]] = {
    "cosyvoice": open_cosyvoice,
    "unit_to_mel": _open_unit_to_mel,
}


def build_vocoder(
    folder: Path | str, *, model_file: str = MODEL_FILE, device: str = "cpu"
) -> AbsVocoder:
    """Open a trained vocoder, whatever its kind.

    Args:
        folder: Output folder of the vocoder's training.
        model_file: Checkpoint in it.
        device: Torch device.

    Raises:
        FileNotFoundError: If config, checkpoint or pretrained weights are absent.
        ValueError: If the kind is unknown or the files do not fit each other.
    """
    folder = Path(folder)
    path = folder / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; run the stage train_vocoder first")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    kind = config.get("vocoder", "unit_to_mel")
    if kind not in VOCODERS:
        raise ValueError(f"{path}: vocoder '{kind}' is not one of {sorted(VOCODERS)}")
    return VOCODERS[kind](folder, config, model_file).to(device)
