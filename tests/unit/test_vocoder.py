"""Vocoder facade: opening a folder, rows on their own, frozen, refusals."""

import pytest
import torch
import yaml

from espnet_taste.decoder.griffin_lim import GriffinLim
from espnet_taste.decoder.hifigan import HifiGanGenerator, read_config
from espnet_taste.decoder.mel import LogMel, MelConfig
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.decoder.vocoder import build_vocoder, open_mel_vocoder

CONF = {
    "num_units": 10,
    "unit_rate_hz": 50.0,
    "speaker_dim": 4,
    "width": 8,
    "unit_blocks": 1,
    "frame_blocks": 1,
}
TINY_HIFIGAN = {
    "upsample_rates": [8, 4],
    "upsample_kernel_sizes": [16, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3],
    "resblock_dilation_sizes": [[1, 2]],
    "hop_size": 32,
}


@pytest.fixture
def folder(tmp_path):
    """What training leaves, with the weight-free mel vocoder."""
    torch.manual_seed(0)
    config = {
        "vocoder": "unit_to_mel",
        "unit_to_mel_conf": CONF,
        "mel_vocoder": "griffin_lim",
        "mel_vocoder_conf": {"num_iterations": 2},
        "optim": "adamw",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    state = UnitToMel(**CONF).state_dict()
    torch.save(
        {f"unit_to_mel.{name}": value for name, value in state.items()},
        tmp_path / "valid.loss.best.pth",
    )
    return tmp_path


def test_a_row_sounds_as_it_would_alone(folder):
    vocoder = build_vocoder(folder)
    units, speaker = torch.randint(10, (3, 40)), torch.randn(3, 4)
    alone = vocoder(units[1:2, :17], torch.tensor([17]), speaker[1:2])[0]

    units[1, 17:] = -1
    batch = vocoder(units, torch.tensor([40, 17, 0]), speaker)

    torch.testing.assert_close(batch[1], alone)
    assert [len(row) for row in batch] == [68 * 256, 29 * 256, 0]
    assert vocoder.sample_rate_hz == 22050
    assert all(row.dtype == torch.float32 for row in batch)


@pytest.mark.parametrize("size", [5, 0])
def test_no_row_has_any_unit(folder, size):
    vocoder = build_vocoder(folder)
    vocoder.mel_vocoder = HifiGanGenerator(read_config(TINY_HIFIGAN))
    units = torch.full((1, size), -1)

    (speech,) = vocoder(units, torch.tensor([0]), torch.randn(1, 4))

    assert (len(speech), speech.dtype) == (0, torch.float32)


@pytest.mark.parametrize("unit", [10, -1])
def test_units_of_another_extractor_are_refused(folder, unit):
    vocoder = build_vocoder(folder)
    units = torch.tensor([[3, 99], [9, unit]])

    vocoder(units, torch.tensor([1, 1]), torch.randn(2, 4))  # anything on padding
    with pytest.raises(ValueError, match=f"units 0..9, got {unit}; .* extractor"):
        vocoder(units, torch.tensor([1, 2]), torch.randn(2, 4))


def test_it_stays_frozen_and_in_eval_mode(folder):
    vocoder = build_vocoder(folder)
    torch.nn.ModuleList([vocoder]).train()

    assert not any(module.training for module in vocoder.modules())
    assert not any(p.requires_grad for p in vocoder.parameters())


def change(folder, **values):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"vocoder": "flow"}, r"'flow' is not one of \['cosyvoice', 'unit_to_mel'\]"),
        ({"mel_vocoder": "x"}, r"'x' is not one of \['griffin_lim', 'hifigan'\]"),
        ({"mel_vocoder_conf": {"steps": 2}}, r"no option \['steps'\]; it has"),
        ({"unit_to_mel_conf": {**CONF, "unit_blocks": 2}}, "not the weights of this"),
    ],
)
def test_a_folder_that_cannot_be_opened_is_named(folder, values, message):
    change(folder, **values)

    with pytest.raises(ValueError, match=message):
        build_vocoder(folder)


def test_missing_files_name_the_stage(folder, tmp_path):
    (folder / "valid.loss.best.pth").unlink()
    with pytest.raises(FileNotFoundError, match="train_vocoder"):
        build_vocoder(folder)
    with pytest.raises(FileNotFoundError, match="config.yaml.*train_vocoder"):
        build_vocoder(tmp_path / "nowhere")


def test_griffin_lim_gives_back_a_tone():
    """The strongest mel channel of every frame survives the round trip."""
    log_mel = LogMel(MelConfig())
    time_s = torch.arange(22050 // 2) / 22050
    mel = log_mel(0.3 * torch.sin(2 * torch.pi * 440 * time_s)[None])

    again = log_mel(GriffinLim(num_iterations=16)(mel))

    inner = slice(3, -3)
    assert torch.equal(mel[0, inner].argmax(-1), again[0, inner].argmax(-1))
    assert (mel.amax() - again.amax()).abs() < 1.0


def test_griffin_lim_leaves_padding_silent():
    mel = torch.randn(2, 12, 80) - 5
    vocoder = open_mel_vocoder("griffin_lim", {"num_iterations": 2})

    speech = vocoder(mel, torch.tensor([12, 5]))

    torch.testing.assert_close(speech[1, : 5 * 256], vocoder(mel[1:, :5])[0])
    assert not speech[1, 5 * 256 :].any()


def test_griffin_lim_ignores_autocast():
    """A YAML file may ask for bfloat16; torchaudio has no such spectra."""
    mel = torch.randn(1, 5, 80) - 5
    vocoder = GriffinLim(num_iterations=2)

    with torch.autocast("cpu", torch.bfloat16):
        speech = vocoder(mel)

    assert speech.equal(vocoder(mel))


def test_griffin_lim_takes_short_rows_for_longer_ones():
    """Half a window needs three frames; one or two get copies of their last."""
    mel = torch.randn(1, 1, 80).expand(-1, 3, -1) - 5
    vocoder = GriffinLim(num_iterations=2)

    longer = vocoder(mel)
    for count in (1, 2):
        short = vocoder(mel[:, :count])
        torch.testing.assert_close(short, longer[:, : count * 256], atol=1e-4, rtol=0)
