"""ESPnet task that learns speech units together with their way back to mel frames.

Frozen encoder states -> units -> mel frames. Two losses shape the units: the mel
frames (what the voice sounds like) and the encoder's last states (what was said).
Afterwards ``bin.export_units`` parts the two halves: the encoder becomes the units of
the corpus, the decoder a start for the vocoder.
"""

import argparse
from collections.abc import Callable, Collection
from typing import Any

import torch
from espnet2.torch_utils.device_funcs import force_gatherable
from espnet2.utils.nested_dict_action import NestedDictAction
from torch import Tensor, nn

from espnet_taste.data.mel_crops import MelCropCollate, StateMelPreprocessor
from espnet_taste.decoder.unit_to_mel import (
    MEL_RATE_HZ,
    SpeakerBlock,
    UnitToMel,
    step_mask,
)
from espnet_taste.layers.precision import autocast
from espnet_taste.tasks.base import TasteTask
from espnet_taste.tasks.building import check_options, record_frozen_weights
from espnet_taste.tasks.unit_to_mel import (
    UnitToMelESPnetModel,
    add_mel_arguments,
    build_perception,
    unit_centre,
)
from espnet_taste.tokenizer.encoder import WhisperEncoder
from espnet_taste.units.unit_encoder import UnitEncoder, centre_states, frames_per_unit
from espnet_taste.units.whisper_features import FRAME_RATE_HZ


class UnitAutoencoderESPnetModel(UnitToMelESPnetModel):
    """Units between frozen encoder states and mel frames.

    Args:
        unit_encoder: States to units.
        unit_to_mel: Units to mel frames, of the same width.
        state_dim: Width of the encoder's last states.
        commitment_weight: Weight of the codebook's commitment loss.
        state_weight: Weight of the squared error with which the encoder's last
            states are predicted from the units; without it the units follow the
            voice and lose words.
        **mel_conf: Further options of ``UnitToMelESPnetModel``.
    """

    def __init__(
        self,
        unit_encoder: UnitEncoder,
        unit_to_mel: UnitToMel,
        state_dim: int,
        *,
        commitment_weight: float = 0.25,
        state_weight: float = 1.0,
        **mel_conf: Any,
    ):
        super().__init__(unit_to_mel, **mel_conf)
        width = unit_to_mel.embed.embedding_dim
        # Units are embedded by their codebook; exporting writes this table.
        unit_to_mel.embed.requires_grad_(False)
        self.unit_encoder = unit_encoder
        self.state_block = SpeakerBlock(width, None)
        self.state_output = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, state_dim)
        )
        self.commitment_weight = commitment_weight
        self.state_weight = state_weight

    def forward(
        self,
        encoder_states: Tensor,
        encoder_states_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        spembs: Tensor,
        frame_offset: Tensor,
        **unused: object,
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return loss, statistics and weight of a batch of ``MelCropCollate``."""
        with autocast(mel.device, self.amp_dtype):
            encoding = self.unit_encoder(encoder_states, encoder_states_lengths)
            predicted = self.unit_to_mel.decode(
                encoding.embedded,
                encoding.lengths,
                self._varied(spembs),
                frame_lengths=mel_lengths,
                frame_offset=frame_offset,
                num_frames=mel.size(1),
            )
            valid = step_mask(encoding.lengths, encoding.embedded.size(1))
            states = self.state_output(self.state_block(encoding.embedded, valid))
            mel_loss, mel_stats, num_frames = self._mel_losses(
                predicted, mel, mel_lengths
            )
        state_error = self._state_error(states.float(), encoder_states, valid)
        loss = (
            mel_loss
            + self.commitment_weight * encoding.commitment
            + self.state_weight * state_error
        )
        stats = {
            "loss": loss.detach(),
            **mel_stats,
            "state_error": state_error.detach(),
            "commitment": encoding.commitment.detach(),
            "perplexity": perplexity(encoding.units, self.unit_encoder.num_units),
        }
        return force_gatherable((loss, stats, num_frames), loss.device)

    def _state_error(self, predicted: Tensor, states: Tensor, valid: Tensor) -> Tensor:
        """Compare with the mean of the last states that a unit stands for."""
        batch, num_units, dim = predicted.shape
        size = self.unit_encoder.frames_per_unit
        keys = states[:, : num_units * size, :dim]
        wanted = keys.reshape(batch, num_units, size, dim).mean(2)
        error = (predicted - wanted).square().mean(-1, keepdim=True)
        return (error * valid).sum() / valid.sum()


def perplexity(units: Tensor, num_units: int) -> Tensor:
    """Return the perplexity of the units of a batch, negative ones left out, ()."""
    slots = torch.where(units < 0, num_units, units).flatten()
    counts = torch.zeros(num_units + 1, device=units.device)
    counts = counts.index_add_(0, slots, torch.ones_like(slots, dtype=counts.dtype))
    share = counts[:-1] / counts[:-1].sum()
    return torch.special.entr(share).sum().exp()


class UnitAutoencoderTask(TasteTask):
    """Train ``UnitEncoder`` and ``UnitToMel`` on encoder states and mel frames."""

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of this task to ESPnet's parser."""
        group = parser.add_argument_group("TASTE speech units")
        cls.add_shared_arguments(group)
        group.add_argument(
            "--units",
            choices=["whisper_vq"],
            default="whisper_vq",
            help="Kind of the units; read again when the folder is opened",
        )
        add_mel_arguments(group)
        group.add_argument(
            "--whisper",
            default="openai/whisper-tiny.en",
            help="Whisper weights of the encoder",
        )
        group.add_argument(
            "--unit_rate_hz", type=float, default=50.0, help="Units a second"
        )
        for name, built in (
            ("encoder_conf", "WhisperEncoder"),
            ("unit_encoder_conf", "UnitEncoder"),
        ):
            group.add_argument(
                f"--{name}",
                action=NestedDictAction,
                default={},
                help=f"The keyword arguments for {built}",
            )

    @classmethod
    def required_data_names(
        cls, train: bool = True, inference: bool = False
    ) -> tuple[str, ...]:
        """Return the names of the data that must be given."""
        return ("encoder_states", "spembs", "mel")

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable:
        """Return the preprocessor of one utterance."""
        return StateMelPreprocessor(_frames_per_mel(args), centre_states)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection], tuple]:
        """Return the batch maker; crops only in training."""
        size = frames_per_unit(args.unit_rate_hz)
        crop = args.crop_units * size if train and args.crop_units else None
        return MelCropCollate(
            _frames_per_mel(args), crop, stream="encoder_states", multiple=size
        )

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> UnitAutoencoderESPnetModel:
        """Build the model that the YAML file describes.

        Raises:
            ValueError: If an option is unknown, or the rate cannot be.
        """
        _check_names(args)
        record_frozen_weights(args, [args.whisper])
        state_dim = WhisperEncoder(args.whisper, **args.encoder_conf).output_size()
        args.unit_encoder_conf["input_dim"] = 2 * state_dim
        args.unit_encoder_conf["frames_per_unit"] = frames_per_unit(args.unit_rate_hz)
        args.unit_to_mel_conf |= {
            "num_units": args.unit_encoder_conf["num_units"],
            "unit_rate_hz": args.unit_rate_hz,
            "unit_centre": unit_centre(args.unit_rate_hz),
        }
        model = UnitAutoencoderESPnetModel(
            UnitEncoder(**args.unit_encoder_conf),
            UnitToMel(**args.unit_to_mel_conf),
            state_dim,
            perception=build_perception(args),
            **args.model_conf,
        )
        cls.start_from(model, args.init_from, new_parts=())
        return model


def _check_names(args: argparse.Namespace) -> None:
    """Check the names of all options before the encoder is loaded."""
    check_options("encoder_conf", args.encoder_conf, WhisperEncoder, given=("model",))
    # What is filled in stands in the config that training leaves, so it may be there.
    encoder = {"input_dim": None, **args.unit_encoder_conf}
    check_options("unit_encoder_conf", encoder, UnitEncoder)
    decoder = {"num_units": None, "unit_rate_hz": None, **args.unit_to_mel_conf}
    check_options("unit_to_mel_conf", decoder, UnitToMel)
    check_options(
        "model_conf",
        args.model_conf,
        UnitAutoencoderESPnetModel,
        UnitToMelESPnetModel,  # takes what the first one passes on
        given=("unit_encoder", "unit_to_mel", "state_dim", "perception"),
    )


def _frames_per_mel(args: argparse.Namespace) -> float:
    return FRAME_RATE_HZ / args.unit_to_mel_conf.get("frame_rate_hz", MEL_RATE_HZ)
