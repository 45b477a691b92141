"""HiFi-GAN generator: loading, frozen state, padding; its log-mel frames."""

import json

import pytest
import torch
from safetensors.torch import save_file

from espnet_taste.decoder import hifigan
from espnet_taste.decoder.hifigan import (
    HifiGanConfig,
    HifiGanGenerator,
    load_hifigan,
    reach_frames,
    read_config,
)
from espnet_taste.decoder.mel import LogMel, MelConfig

TINY = {
    "upsample_rates": [8, 4],
    "upsample_kernel_sizes": [16, 8],
    "upsample_initial_channel": 8,
    "resblock_kernel_sizes": [3, 5],
    "resblock_dilation_sizes": [[1, 3], [1, 2]],
    "num_mels": 6,
    "hop_size": 32,
}


@pytest.fixture
def generator():
    torch.manual_seed(0)
    return HifiGanGenerator(read_config(TINY))


def test_the_default_is_v1():
    """14 M parameters: the released generator has 13,926,017 without weight norm."""
    with torch.device("meta"):
        generator = HifiGanGenerator(HifiGanConfig())

    assert sum(p.numel() for p in generator.parameters()) == 13_926_017


def test_every_frame_becomes_hop_size_samples(generator):
    assert generator(torch.randn(2, 5, 6)).shape == (2, 5 * 32)


def test_padding_frames_do_not_reach_the_samples(generator):
    mel = torch.randn(2, 9, 6)
    alone = generator(mel[1:, :4])

    for pad in (0.0, -11.5, 7.0):
        mel[1, 4:] = pad
        batch = generator(mel, torch.tensor([9, 4]))
        torch.testing.assert_close(batch[1, : 4 * 32], alone[0])
        assert not batch[1, 4 * 32 :].any()


def test_under_autocast_the_first_and_last_layer_stay_exact(generator, monkeypatch):
    dtypes, convolve = [], torch.nn.functional.conv2d

    def record(x, *args, **options):
        result = convolve(x, *args, **options)
        dtypes.append(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, "conv2d", record)
    with torch.autocast("cpu", torch.bfloat16):
        speech = generator(torch.randn(1, 5, 6))

    assert speech.dtype == dtypes[0] == dtypes[-1] == torch.float32
    assert set(dtypes[1:-1]) == {torch.bfloat16}


def test_windows_equal_the_whole(generator, monkeypatch):
    """Also where rows meet inside a window, and with rows of no frames."""
    monkeypatch.setattr(hifigan, "WINDOW_FRAMES", 40)
    lengths = torch.tensor([150, 3, 0, 61])
    mel = torch.randn(4, 150, 6)

    speech = generator(mel, lengths)

    for row, length, samples in zip(mel, lengths.tolist(), speech):
        if length:
            alone = generator._generate(row[None, :length], torch.ones(1, length))
            torch.testing.assert_close(samples[: length * 32], alone[0])
        assert not samples[length * 32 :].any()


def test_a_sample_sees_just_the_reach(generator):
    reach = reach_frames(generator.config)
    mel = torch.randn(1, 60, 6)
    changed = mel.clone()
    changed[:, 30] += 5

    differs = (generator(mel) != generator(changed)).view(60, 32).any(1).nonzero()

    assert 30 - reach <= differs.min() <= 30 - reach + 2
    assert 30 + reach - 2 <= differs.max() <= 30 + reach


def test_long_input_is_generated_in_one_shape(generator, monkeypatch):
    """A CPU compiles its convolutions anew for every shape, and keeps them."""
    shapes = set()
    generate = HifiGanGenerator._generate

    def watch(self, mel, mask):
        shapes.add(mel.shape)
        return generate(self, mel, mask)

    monkeypatch.setattr(HifiGanGenerator, "_generate", watch)
    for size in (257, 300, 411, 900):
        generator(torch.randn(2, size, 6))
    assert shapes == {(1, hifigan.WINDOW_FRAMES, 6)}


def test_it_stays_frozen_and_in_eval_mode(generator):
    torch.nn.Sequential(generator).train()

    assert not any(module.training for module in generator.modules())
    assert not any(p.requires_grad for p in generator.parameters())


def test_load(generator, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    save_file(generator.state_dict(), tmp_path / "model.safetensors")
    mel = torch.randn(1, 4, 6)

    loaded = load_hifigan(tmp_path)

    torch.testing.assert_close(loaded(mel), generator(mel))
    assert loaded.sample_rate_hz == 22050


def test_foreign_weights_are_refused(generator, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    state = generator.state_dict()
    del state["conv_pre.bias"]
    save_file(state, tmp_path / "model.safetensors")

    with pytest.raises(ValueError, match=r"1 tensors.*conv_pre\.bias"):
        load_hifigan(tmp_path)


def test_log_mel_frame_is_centred_on_its_hop():
    """A click in the middle of frame 10 is loudest there."""
    log_mel = LogMel(MelConfig())
    speech = torch.zeros(1, 256 * 20)
    speech[0, 256 * 10 + 128] = 1.0

    mel = log_mel(speech)

    assert mel.shape == (1, 20, 80)
    assert mel[0].sum(-1).argmax() == 10


def test_log_mel_of_silence_is_the_floor():
    mel = LogMel(MelConfig())(torch.zeros(1, 2048))

    torch.testing.assert_close(mel.exp(), torch.full_like(mel, 1e-5), atol=1e-6, rtol=1)


def test_too_short_speech_is_refused():
    with pytest.raises(ValueError, match="more than 384 samples, got 100"):
        LogMel(MelConfig())(torch.zeros(1, 100))


@pytest.mark.weights
def test_copy_synthesis_of_released_weights_keeps_the_mel():
    """Mel -> wave -> mel comes back; fails for a wrong mel scale or slope."""
    from espnet_taste.weights import resolve

    generator = load_hifigan(resolve("hifigan/universal-v1", offline=True))
    log_mel = LogMel(generator.config.mel)
    time_s = torch.arange(22050) / 22050
    tone = sum(torch.sin(2 * torch.pi * 150 * k * time_s) / k for k in range(1, 20))
    mel = log_mel(0.2 * tone[None])

    again = log_mel(generator(mel))

    assert (again - mel).abs()[:, 5:-5].mean() < 1.0
