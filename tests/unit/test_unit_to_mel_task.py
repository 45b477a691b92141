"""ESPnet side of the unit-to-mel vocoder: loss, checkpoint names, config."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.decoder.vocoder import TRAINED_PART
from espnet_taste.tasks.unit_to_mel import (
    UnitToMelESPnetModel,
    UnitToMelTask,
    build_perception,
    complete_units,
    unit_centre,
)

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def model():
    torch.manual_seed(0)
    part = UnitToMel(
        10, 50.0, num_mels=6, speaker_dim=4, width=8, unit_blocks=1, frame_blocks=1
    )
    return UnitToMelESPnetModel(part, speaker_noise=0.02)


@pytest.fixture
def batch():
    return {
        "units": torch.randint(10, (2, 30)),
        "units_lengths": torch.tensor([30, 20]),
        "mel": torch.randn(2, 51, 6) - 5,
        "mel_lengths": torch.tensor([51, 34]),
        "spembs": torch.nn.functional.normalize(torch.randn(2, 4), dim=-1),
        "frame_offset": torch.zeros(2),
    }


def test_padding_does_not_reach_the_loss(model, batch):
    model.eval()
    loss, stats, weight = model(**batch, utt_id=["a", "b"])

    batch["mel"][1, 34:] = 99.0
    batch["units"][1, 20:] = -1
    again, _, _ = model(**batch)

    torch.testing.assert_close(again, loss)
    assert weight == 51 + 34
    assert not stats["loss"].requires_grad


def test_every_parameter_learns(model, batch):
    model.train()(**batch)[0].backward()

    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert not idle


def test_bfloat16_changes_the_loss_little(model, batch, with_bfloat16):
    full = model.eval()(**batch)[0]
    model.amp_dtype = torch.bfloat16
    half = model(**batch)[0]

    assert half.dtype == torch.float32
    assert full != half and abs(full - half) < 0.05 * full


def test_speaker_embeddings_of_another_encoder_are_named(model, batch):
    batch["spembs"] = batch["spembs"][:, :-1]
    with pytest.raises(ValueError, match="unit_to_mel_conf: speaker_dim is"):
        model(**batch)


def test_speakers_vary_in_training_only(model, batch):
    spembs = batch["spembs"]

    first, second = model.train()._varied(spembs), model._varied(spembs)

    assert not torch.equal(first, second) and not torch.equal(first, spembs)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(2))
    assert (first * spembs).sum(-1).min() > 0.9  # a little
    assert model.eval()._varied(spembs) is spembs


def test_an_unknown_amp_dtype_is_refused(model):
    with pytest.raises(ValueError, match="bfloat16.*got 'bf16'"):
        UnitToMelESPnetModel(model.unit_to_mel, amp_dtype="bf16")


def test_checkpoint_names_are_those_the_vocoder_opens(model):
    assert all(name.startswith(TRAINED_PART) for name in model.state_dict())


def test_units_come_from_their_folder(tmp_path):
    facts = {"units": "whisper_kmeans", "num_units": 99, "unit_rate_hz": 25.0}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    args = argparse.Namespace(units_dir=str(tmp_path), unit_to_mel_conf={})

    complete_units(args)
    complete_units(args)

    expected = {"num_units": 99, "unit_rate_hz": 25.0, "unit_centre": 0.25}
    assert args.unit_to_mel_conf == expected
    with pytest.raises(ValueError, match="give --units_dir"):
        complete_units(argparse.Namespace(units_dir=None, unit_to_mel_conf={}))


def test_two_states_a_unit_are_centred_between_them():
    assert unit_centre(50.0) == 0.0
    assert unit_centre(25.0) == 0.25


@pytest.mark.parametrize(
    "name", ["train_unit_to_mel.yaml", "debug/train_unit_to_mel.yaml"]
)
def test_configs_build(name):
    argv = ["--config", str(CONF / name), "--output_dir", "unused"]
    args = UnitToMelTask.get_parser().parse_args(argv)
    args.unit_to_mel_conf |= {"num_units": 8, "unit_rate_hz": 50.0}

    model = UnitToMelTask.build_model(args)

    assert model.amp_dtype == torch.bfloat16
    assert model.perception.with_values and model.perception.encoder.value_layer == 2
    assert UnitToMelTask.build_collate_fn(args, train=True).crop_units > 0
    assert UnitToMelTask.build_collate_fn(args, train=False).crop_units is None


def test_a_layer_that_would_not_be_compared_is_refused():
    argv = ["--config", str(CONF / "train_unit_to_mel.yaml"), "--output_dir", "unused"]
    args = UnitToMelTask.get_parser().parse_args(argv)

    args.perceptual_layer = 9
    with pytest.raises(ValueError, match="perceptual_layer: value_layer must be in"):
        build_perception(args)

    args.model_conf = {"perceptual_weight": 0.0}
    with pytest.raises(ValueError, match="needs model_conf: perceptual_weight"):
        build_perception(args)
