"""GE2E speaker encoder: windows, level, frozen state."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from espnet_taste.units import speaker
from espnet_taste.units.speaker import SpeakerEncoder, partial_starts, raise_level


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return SpeakerEncoder()


def noise(num_samples, gain=0.1):
    rng = np.random.default_rng(0)
    return (gain * rng.standard_normal(num_samples)).astype(np.float32)


@pytest.mark.parametrize("num_samples", [3, 16000, 40000])
def test_an_embedding_is_a_unit_vector(encoder, num_samples):
    embedding = encoder.embed(noise(num_samples))

    assert embedding.shape == (256,) and embedding.dtype == np.float32
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)
    assert embedding.min() >= 0.0


def test_quiet_speech_is_raised_and_loud_speech_left():
    assert np.sqrt(np.mean(raise_level(noise(1000, 1e-4)) ** 2)) == pytest.approx(
        10 ** (-30 / 20), rel=1e-3
    )
    np.testing.assert_array_equal(raise_level(noise(1000, 0.5)), noise(1000, 0.5))


def test_windows_step_by_their_rate_and_leave_a_thin_rest_out():
    """Frame numbers as Resemblyzer 0.1.4 computes them for 1.3 windows a second."""
    assert partial_starts(16000) == [0]
    assert partial_starts(16000 * 3) == [0, 77, 154]
    assert partial_starts(16000 * 5) == [0, 77, 154, 231, 308]


@pytest.mark.parametrize("speech", [np.zeros(800, np.float32), np.zeros(0, np.float32)])
def test_silence_has_no_speaker(encoder, speech):
    with pytest.raises(ValueError, match="not silent"):
        encoder.embed(speech)


def test_it_stays_in_eval_mode(encoder):
    encoder.train()

    assert not encoder.training and not encoder.lstm.training


def test_load_ignores_the_training_loss_and_names_what_is_missing(encoder, tmp_path):
    state = {**encoder.state_dict(), "similarity_weight": torch.ones(1)}
    save_file(state, tmp_path / "model.safetensors")
    np.testing.assert_allclose(
        SpeakerEncoder.load(tmp_path).embed(noise(9000)), encoder.embed(noise(9000))
    )

    del state["linear.bias"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="linear.bias"):
        SpeakerEncoder.load(tmp_path)


def test_a_long_recording_is_embedded_by_blocks_of_windows(encoder, monkeypatch):
    """An hour took 4 GB at once."""
    wave, sizes = noise(16000 * 5), []
    whole = encoder.embed(wave)
    encoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(speaker, "BLOCK", 2)

    np.testing.assert_allclose(encoder.embed(wave), whole, atol=1e-6)
    assert sizes == [2, 2, 1]


def test_a_mel_frame_is_centred_on_its_10_ms(encoder):
    wave, seen = np.full(16000 * 3, 1e-4, np.float32), []
    wave[60 * 160] = wave[200 * 160] = 1.0
    encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    encoder.embed(wave)

    energy = seen[0].sum(-1)
    starts = partial_starts(len(wave))
    loudest = energy.argmax(-1) + torch.tensor(starts)
    assert starts[:2] == [0, 77] and loudest.tolist()[:2] == [60, 200]
