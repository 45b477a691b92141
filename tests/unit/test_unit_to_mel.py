"""Unit-to-mel model: padding, crops on the grid, speaker."""

import pytest
import torch

from espnet_taste.decoder.unit_to_mel import UnitToMel


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = UnitToMel(
        10, 50.0, num_mels=6, speaker_dim=4, width=8, unit_blocks=1, frame_blocks=1
    )
    for block in (*model.unit_blocks, *model.frame_blocks):
        torch.nn.init.normal_(block.modulation.weight)
    return model.eval()


def test_frames_cover_the_units(model):
    lengths = torch.tensor([50, 25])

    mel = model(torch.zeros(2, 50, dtype=torch.long), lengths, torch.randn(2, 4))

    assert model.mel_lengths(lengths).tolist() == [86, 43]
    assert mel.shape == (2, 86, 6) and mel.dtype == torch.float32


@pytest.mark.parametrize("pad", [-1, 0, 9])
def test_padding_does_not_reach_the_frames(model, pad):
    units = torch.randint(10, (2, 30))
    speaker = torch.randn(2, 4)
    alone = model(units[1:, :12], torch.tensor([12]), speaker[1:])

    units[1, 12:] = pad
    batch = model(units, torch.tensor([30, 12]), speaker)

    torch.testing.assert_close(batch[1, : alone.size(1)], alone[0])


def test_a_crop_sees_the_frames_of_the_whole():
    """With no context, a crop's frames equal the whole's at their offset."""
    torch.manual_seed(0)
    model = UnitToMel(
        10, 50.0, num_mels=6, speaker_dim=4, width=8, unit_blocks=0, frame_blocks=0
    )
    units, speaker = torch.randint(10, (1, 60)), torch.randn(1, 4)
    whole = model(units, torch.tensor([60]), speaker)
    start, first = 20, 35  # unit 20 starts at frame 34.45
    offset = torch.tensor([first - start / model.units_per_frame])

    crop = model(
        units[:, start:50],
        torch.tensor([30]),
        speaker,
        frame_lengths=torch.tensor([45]),
        frame_offset=offset,
    )

    torch.testing.assert_close(crop[0], whole[0, first : first + 45])


def test_unit_centre_moves_the_reading_place():
    early, late = (
        UnitToMel(4, 25.0, num_mels=2, width=4, unit_blocks=0, frame_blocks=0,
                  speaker_dim=4, unit_centre=centre)
        for centre in (0.0, 0.25)
    )  # fmt: skip
    late.load_state_dict(early.state_dict())
    args = torch.tensor([[0, 1, 2]]), torch.tensor([3]), torch.randn(1, 4)
    shift = 0.25 / early.units_per_frame  # frames

    moved = early(*args, frame_offset=torch.tensor([-shift]))

    torch.testing.assert_close(late(*args), moved)


def test_the_speaker_matters(model):
    units, lengths = torch.randint(10, (1, 20)), torch.tensor([20])

    first, second = (model(units, lengths, torch.randn(1, 4)) for _ in range(2))

    assert (first - second).abs().max() > 1e-3
