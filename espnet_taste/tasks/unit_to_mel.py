"""ESPnet task that trains the way back from units to mel frames."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import int_or_none, str_or_none
from torch import Tensor

from espnet_taste.data.mel_crops import MelCropCollate, UnitMelPreprocessor
from espnet_taste.decoder.unit_to_mel import UnitToMel, step_mask
from espnet_taste.layers.precision import amp_dtype_of, autocast
from espnet_taste.tasks.base import TasteTask
from espnet_taste.tasks.building import (
    check_options,
    check_speaker_dim,
    record_frozen_weights,
)
from espnet_taste.tasks.checkpointing import TasteESPnetModel
from espnet_taste.tasks.perception import WhisperPerception
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.units.build import read_units_info


class UnitToMelESPnetModel(TasteESPnetModel):
    """Regression of mel frames.

    Args:
        unit_to_mel: The model to train.
        amp_dtype: "bfloat16" to compute under autocast on any device that has
            instructions for it (ESPnet's own option is for CUDA alone); None for
            float32.
        speaker_noise: Deviation of the noise on speaker embeddings in training; few
            speakers are over-fitted without it.
        perceptual_weight: Weight of ``perception`` beside the error of the frames.
        perceptual_share: Share of a training batch's rows that ``perception`` hears,
            another one every step; hearing is most of the cost of a step.
        perception: What compares true and predicted frames; None for nothing more.
        extract_feats_in_collect_stats: Only there because ESPnet asks for it.

    Raises:
        ValueError: If ``amp_dtype`` is unknown or ``perceptual_share`` out of range.
    """

    def __init__(
        self,
        unit_to_mel: UnitToMel,
        *,
        amp_dtype: str | None = None,
        speaker_noise: float = 0.02,
        perceptual_weight: float = 0.0,
        perceptual_share: float = 1.0,
        perception: WhisperPerception | None = None,
        extract_feats_in_collect_stats: bool = False,
    ):
        super().__init__()
        if not 0 < perceptual_share <= 1:
            raise ValueError(
                "perceptual_share must be above 0 and at most 1, got "
                f"{perceptual_share}"
            )
        self.unit_to_mel = unit_to_mel
        self.amp_dtype = amp_dtype_of(amp_dtype)
        self.speaker_noise = speaker_noise
        self.perceptual_weight = perceptual_weight
        self.perceptual_share = perceptual_share
        self.perception = perception
        self.extract_feats_in_collect_stats = extract_feats_in_collect_stats
        self.protect_frozen_parts(() if perception is None else ("perception",))

    def forward(
        self,
        units: Tensor,
        units_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        spembs: Tensor,
        frame_offset: Tensor,
        **unused: object,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return loss, statistics and weight of a batch of ``MelCropCollate``."""
        with autocast(units.device, self.amp_dtype):
            predicted = self.unit_to_mel(
                units,
                units_lengths,
                self._varied(spembs),
                frame_lengths=mel_lengths,
                frame_offset=frame_offset,
                num_frames=mel.size(1),
            )
            loss, stats, num_frames = self._mel_losses(predicted, mel, mel_lengths)
        stats["loss"] = loss.detach()
        return force_gatherable((loss, stats, num_frames), loss.device)

    def _mel_losses(
        self, predicted: Tensor, mel: Tensor, lengths: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the weighted losses of mel frames, statistics and their number."""
        loss, num_frames = mel_error(predicted, mel, lengths)
        stats = {"l1": loss.detach()}
        if self.perception is not None:
            rows = self._heard_rows(mel)
            heard = self.perception(predicted[rows], mel[rows], lengths[rows])
            stats["perceptual"] = heard.detach()
            loss = loss + self.perceptual_weight * heard
        return loss, stats, num_frames

    def _heard_rows(self, mel: Tensor) -> Tensor | slice:
        """Return the rows whose sound is compared: all, or some of them in training."""
        if not self.training or self.perceptual_share == 1:
            return slice(None)
        count = max(1, round(self.perceptual_share * len(mel)))
        return torch.randperm(len(mel), device=mel.device)[:count]

    def _varied(self, spembs: Tensor) -> Tensor:
        """Move speaker embeddings a little in training, (B, D)."""
        check_speaker_dim("unit_to_mel_conf", spembs, self.unit_to_mel.speaker_dim)
        if not self.training or self.speaker_noise == 0:
            return spembs
        noise = self.speaker_noise * torch.randn_like(spembs)
        return torch.nn.functional.normalize(spembs + noise, dim=-1)


def mel_error(predicted: Tensor, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean absolute error over valid frames and their number.

    Args:
        predicted: (B, M, C), float32.
        mel: (B, M, C), float32; any padding.
        lengths: Valid frames, (B,), int64.
    """
    mask = step_mask(lengths, mel.size(1))
    error = (predicted - mel).abs().mean(-1, keepdim=True)
    return (error * mask).sum() / mask.sum(), mask.sum()


class UnitToMelTask(TasteTask):
    """Train ``UnitToMel`` on units, speaker embeddings and mel frames."""

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this task to ESPnet's parser."""
        group = parser.add_argument_group("TASTE unit-to-mel vocoder")
        cls.add_shared_arguments(group)
        group.add_argument(
            "--vocoder",
            choices=["unit_to_mel"],
            default="unit_to_mel",
            help="Kind of the vocoder; read again when the folder is opened",
        )
        group.add_argument(
            "--units_dir",
            type=str_or_none,
            default=None,
            help="Folder of the units; gives their number and rate",
        )
        add_mel_arguments(group)
        group.add_argument(
            "--mel_vocoder",
            choices=["hifigan", "griffin_lim"],
            default="hifigan",
            help="What turns mel frames into a waveform (used at synthesis)",
        )
        group.add_argument(
            "--mel_vocoder_conf",
            action=NestedDictAction,
            default={},
            help="Its options, e.g. model=hifigan/universal-v1",
        )
        group.add_argument(
            "--vocoder_amp_dtype",
            type=str_or_none,
            default=None,
            help="bfloat16 for faster synthesis on hardware that has it",
        )

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that must be given."""
        return ("units", "spembs") if inference else ("units", "spembs", "mel")

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """Return the preprocessor of one utterance."""
        model = _build_on_meta(args)
        return UnitMelPreprocessor(model.units_per_frame, model.num_units)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection], tuple]:
        """Return the batch maker; crops only in training."""
        crop_units = args.crop_units if train else None
        return MelCropCollate(_build_on_meta(args).units_per_frame, crop_units)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> UnitToMelESPnetModel:
        """Build the model that the YAML file describes.

        Raises:
            ValueError: If an option is unknown, or number or rate of the units.
        """
        complete_units(args)
        given = ("unit_to_mel", "perception")
        check_options("model_conf", args.model_conf, UnitToMelESPnetModel, given=given)
        model = UnitToMelESPnetModel(
            UnitToMel(**args.unit_to_mel_conf),
            perception=build_perception(args),
            **args.model_conf,
        )
        cls.start_from(model, args.init_from, new_parts=())
        return model


def add_mel_arguments(group: argparse._ArgumentGroup) -> None:
    """Add the options of every task that trains a ``UnitToMel`` on crops."""
    group.add_argument(
        "--unit_to_mel_conf",
        action=NestedDictAction,
        default={},
        help="The keyword arguments for UnitToMel",
    )
    group.add_argument(
        "--perceptual_whisper",
        default="openai/whisper-tiny.en",
        help="Whisper weights of the perceptual loss (model_conf: perceptual_weight)",
    )
    group.add_argument(
        "--perceptual_layer",
        type=int_or_none,
        default=None,
        help="Layer of that Whisper whose input is compared as well, as the last "
        "states are; none for the last states alone",
    )
    group.add_argument(
        "--crop_units",
        type=int_or_none,
        default=96,
        help="Units a training crop; none for whole utterances",
    )


def build_perception(args: argparse.Namespace) -> WhisperPerception | None:
    """Open the frozen encoder of the perceptual loss, if its weight asks for one.

    Raises:
        ValueError: If its mel channels are not the vocoder's, it has no such layer, or
            a layer is given without the weight.
        FileNotFoundError: If its weights cannot be had.
    """
    layer = getattr(args, "perceptual_layer", None)  # absent in older configs
    if not args.model_conf.get("perceptual_weight"):
        if layer is not None:
            raise ValueError("perceptual_layer needs model_conf: perceptual_weight")
        return None
    record_frozen_weights(args, [args.perceptual_whisper])
    if layer is None:
        return WhisperPerception(WhisperEncoder(args.perceptual_whisper))
    try:
        encoder = WhisperEncoder(args.perceptual_whisper, layer)
    except ValueError as error:
        raise ValueError(f"perceptual_layer: {error}") from error
    return WhisperPerception(encoder, with_values=True)


def complete_units(args: argparse.Namespace) -> None:
    """Fill in number and rate of the units from their folder.

    Raises:
        ValueError: If there is no folder and the config does not name them, or an
            option of the model is unknown.
    """
    conf = args.unit_to_mel_conf
    if args.units_dir is not None:
        info = read_units_info(Path(args.units_dir))
        conf["num_units"], conf["unit_rate_hz"] = info.num_units, info.unit_rate_hz
        # Two frames a unit: its centre lies between theirs.
        conf.setdefault("unit_centre", unit_centre(info.unit_rate_hz))
        args.units_dir = None  # noted in the config; not needed again
    if missing := sorted({"num_units", "unit_rate_hz"} - conf.keys()):
        raise ValueError(f"give --units_dir, or unit_to_mel_conf with {missing}")
    check_options("unit_to_mel_conf", conf, UnitToMel)


def unit_centre(unit_rate_hz: float, state_rate_hz: float = 50.0) -> float:
    """Return where the centre of the states of a unit lies, in units.

    State j of Whisper is centred at j / 50 s; a unit of n states starts at n j.
    """
    states = state_rate_hz / unit_rate_hz
    return (states - 1) / 2 / states


def _build_on_meta(args: argparse.Namespace) -> UnitToMel:
    complete_units(args)
    with torch.device("meta"):
        return UnitToMel(**args.unit_to_mel_conf)
