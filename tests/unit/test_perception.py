"""The perceptual loss: what it compares, padding, gradients, frozen weights."""

import pytest
import torch

from espnet_taste.decoder.mel import LogMel, MelConfig, resample
from espnet_taste.decoder.unit_to_mel import UnitToMel
from espnet_taste.tasks.perception import WhisperPerception
from espnet_taste.tasks.unit_to_mel import UnitToMelESPnetModel
from espnet_taste.tokenizer.log_mel import log_mel
from tests.tiny_whisper import tiny_encoder


@pytest.fixture
def perception():
    return WhisperPerception(tiny_encoder())


def mels(*sizes):
    torch.manual_seed(0)
    return [torch.randn(2, size, 80) - 5 for size in sizes]


def test_equal_spectrograms_have_no_distance(perception):
    (mel,) = mels(60)

    # Not 0.0: with a gradient the attention is another kernel.
    assert perception(mel, mel, torch.tensor([60, 31])) < 1e-10


def test_a_batch_is_the_mean_of_its_rows_whatever_the_padding(perception):
    """Weighted by the states of a row: 34 and 17 for 60 and 30 frames."""
    predicted, mel = mels(60, 60)
    alone = [
        perception(predicted[i : i + 1, :n], mel[i : i + 1, :n], torch.tensor([n]))
        for i, n in ((0, 60), (1, 30))
    ]

    for pad in (0.0, 9.0, -11.5):
        predicted[1, 30:], mel[1, 30:] = pad, -pad
        both = perception(predicted, mel, torch.tensor([60, 30]))
        torch.testing.assert_close(both, (34 * alone[0] + 17 * alone[1]) / 51)


def test_one_frame_is_enough(perception):
    predicted, mel = mels(1, 1)

    assert perception(predicted, mel, torch.tensor([1, 1])) > 0


def test_values_are_compared_beside_the_last_states(perception):
    """Normalised: their scale is not that of the last states."""
    predicted, mel = mels(60, 60)
    lengths = torch.tensor([60, 31])
    encoder = perception.encoder
    both = WhisperPerception(encoder, with_values=True)
    floor = torch.full((), -20.0)

    added = both(predicted, mel, lengths) - perception(predicted, mel, lengths)

    frames = torch.tensor([34, 17])
    own, true = (
        encoder.perceive(
            (torch.maximum(both._on_whisper_grid(x, lengths, 34), floor) + 4) / 4,
            frames,
        ).values
        for x in (predicted, mel)
    )
    normalised = [torch.nn.functional.layer_norm(v, v.shape[-1:]) for v in (own, true)]
    error = (normalised[0] - normalised[1]).square().mean(-1)
    wanted = (error[0, :34].sum() + error[1, :17].sum()) / 51
    torch.testing.assert_close(added, wanted)


@pytest.mark.parametrize("with_values", [False, True])
def test_gradients_reach_the_prediction_and_nothing_else(perception, with_values):
    perception = WhisperPerception(perception.encoder, with_values=with_values)
    predicted, mel = mels(60, 60)
    predicted.requires_grad_()
    mel.requires_grad_()

    perception.train()(predicted, mel, torch.tensor([60, 20])).backward()

    assert predicted.grad[0].any() and predicted.grad[1, :20].any()
    assert not predicted.grad[1, 20:].any()
    assert mel.grad is None
    assert all(p.grad is None for p in perception.parameters())
    assert not perception.encoder.training


def test_whisper_hears_its_own_spectrogram(perception):
    """Of one tone both front-ends see the same decibels, within three."""
    config = MelConfig()
    seconds = torch.arange(config.sample_rate_hz) / config.sample_rate_hz
    tone = (0.3 * torch.sin(2 * torch.pi * 1000 * seconds))[None]
    mel = LogMel(config)(tone)

    heard = perception._on_whisper_grid(mel, torch.tensor([mel.size(1)]), 40)

    direct = log_mel(
        resample(tone, config.sample_rate_hz, 16000), perception.encoder.mel_filters
    )
    direct = direct[:, :80] * 4 - 4
    loudest = direct.mean(1).argmax()
    assert heard.mean(1).argmax() == loudest
    difference = (heard - direct)[0, 5:-5, loudest]
    assert difference.abs().max() < 0.3


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="hears 80 mel channels.*have 40"):
        WhisperPerception(tiny_encoder(), MelConfig(num_mels=40))


def test_it_stays_out_of_the_checkpoint_and_counts_in_the_loss(perception):
    part = UnitToMel(
        10, 50.0, speaker_dim=4, width=8, unit_blocks=1, frame_blocks=1
    ).eval()
    plain = UnitToMelESPnetModel(part).eval()
    model = UnitToMelESPnetModel(part, perceptual_weight=2.0, perception=perception)
    batch = {
        "units": torch.randint(10, (2, 30)),
        "units_lengths": torch.tensor([30, 20]),
        "mel": mels(51)[0],
        "mel_lengths": torch.tensor([51, 34]),
        "spembs": torch.nn.functional.normalize(torch.ones(2, 4), dim=-1),
        "frame_offset": torch.zeros(2),
    }

    loss, stats, _ = model.eval()(**batch)

    assert model.state_dict().keys() == plain.state_dict().keys()
    assert stats["perceptual"] > 0
    torch.testing.assert_close(loss, plain(**batch)[0] + 2 * stats["perceptual"])


def test_a_share_of_the_rows_is_heard_in_training_and_all_in_evaluation(perception):
    """Of two rows one is heard, now the first and now the second."""
    part = UnitToMel(
        10, 50.0, speaker_dim=4, width=8, unit_blocks=1, frame_blocks=1
    ).eval()
    options = {"perception": perception, "speaker_noise": 0.0, "perceptual_weight": 1.0}
    model = UnitToMelESPnetModel(part, perceptual_share=0.5, **options)
    mel, lengths = mels(51)[0], torch.tensor([51, 34])
    other = mel.flip(1)
    alone = [
        float(perception(other[row : row + 1], mel[row : row + 1], lengths[row][None]))
        for row in range(2)
    ]

    def heard():
        return float(model._mel_losses(other, mel, lengths)[1]["perceptual"])

    found = {round(heard(), 5) for _ in range(20)}
    assert found == {round(value, 5) for value in alone}
    model.eval()
    assert heard() == pytest.approx(float(perception(other, mel, lengths)))


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_out_of_range_is_refused(share):
    part = UnitToMel(10, 50.0, speaker_dim=4, width=8, unit_blocks=1, frame_blocks=1)

    with pytest.raises(ValueError, match=f"at most 1, got {share}"):
        UnitToMelESPnetModel(part, perceptual_share=share)
