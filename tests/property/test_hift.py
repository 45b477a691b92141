"""A row of HiFT sounds as it would alone; its transforms are torch's."""

import copy

import pytest
import torch

from espnet_taste.decoder.hift import HiftConfig, HiftGenerator, row_draws
from espnet_taste.decoder.hift_layers import NormedConv, inverse_stft, stft
from espnet_taste.decoder.hift_source import HarmonicSource

CONFIG = HiftConfig(num_mels=6, channels=16, f0_channels=8)
LENGTHS = torch.tensor([7, 1, 12, 5])
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def hift():
    torch.manual_seed(0)
    model = HiftGenerator(CONFIG)
    # Frames around the threshold: some are voiced, some not.
    model.f0_predictor.classifier.weight.mul_(30)
    model.f0_predictor.classifier.bias.fill_(CONFIG.voiced_above_hz)
    return model


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    size = int(LENGTHS.max())
    mel = torch.randn(len(LENGTHS), CONFIG.num_mels, size, generator=generator)
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(LENGTHS))]
    samples = (LENGTHS * CONFIG.hop_size).tolist()
    return mel, *row_draws(generators, samples, CONFIG.harmonics + 1)


@pytest.mark.parametrize("padding", [0.0, -11.5, 30.0])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)]
)
def test_batch_equals_single(hift, batch, padding, dtype, tolerance):
    """In double precision a leak of padding could not hide behind rounding."""
    hift = copy.deepcopy(hift).to(dtype)
    batch = [value.to(dtype) for value in batch]
    mel, phase, noise = (value.clone() for value in batch)
    for row, length in enumerate(LENGTHS.tolist()):
        mel[row, :, length:] = padding
        noise[row, :, length * CONFIG.hop_size :] = padding

    speech = hift(mel, LENGTHS, phase, noise)

    voiced = hift.predict_f0(mel, LENGTHS) > CONFIG.voiced_above_hz
    assert 0 < voiced[2].sum() < LENGTHS[2]
    for row, length in enumerate(LENGTHS.tolist()):
        samples = length * CONFIG.hop_size
        expected = hift(
            batch[0][row : row + 1, :, :length],
            LENGTHS[row : row + 1],
            batch[1][row : row + 1],
            batch[2][row : row + 1, :, :samples],
        )[0]
        assert expected.shape == (samples,) and expected.std() > 1e-3
        close = {"atol": tolerance, "rtol": tolerance}
        torch.testing.assert_close(speech[row, :samples], expected, **close)


@pytest.mark.parametrize("padding", [0.0, 5.0])
def test_transforms_are_torchs_at_the_end_of_every_row(padding):
    generator = torch.Generator().manual_seed(2)
    speech = torch.randn(3, 160, generator=generator)
    lengths = torch.tensor([160, 64, 12])
    window = torch.hann_window(16)
    for row, length in enumerate(lengths.tolist()):
        speech[row, length:] = padding
    mask = (torch.arange(41) <= lengths[:, None] // 4)[:, None].float()

    found = stft(speech, lengths, 16, 4)
    magnitude, angle = found.abs()[:, :9] + 0.1, found[:, 9:]
    back = inverse_stft(magnitude, angle, mask, 4)

    for row, length in enumerate(lengths.tolist()):
        expected = torch.stft(
            speech[row, :length], 16, 4, window=window, return_complex=True
        )
        frames = length // 4 + 1
        pair = torch.cat([expected.real, expected.imag])
        torch.testing.assert_close(found[row, :, :frames], pair, **CLOSE)
        spectrum = torch.polar(magnitude, angle)[row, :, :frames]
        inverse = torch.istft(spectrum, 16, 4, window=window)
        torch.testing.assert_close(back[row, :length], inverse, **CLOSE)


def test_a_long_tone_keeps_its_frequency():
    """30 s at 440 Hz and its harmonics: phases are not rounded to float32."""
    source = HarmonicSource(
        8, 22050, amplitude=1.0, noise=0.0, voiced_above_hz=10.0
    ).requires_grad_(False)
    size = 30 * 22050
    f0 = torch.full((1, size), 440.0)

    sines = source.sines(f0, torch.zeros(1, 9), torch.zeros(1, 9, size))

    last = torch.arange(size - 99, size + 1).double()
    angle = 2 * torch.pi * 440 * 9 / 22050 * last
    expected = angle.sin().float()
    torch.testing.assert_close(sines[0, 8, -100:], expected, atol=1e-4, rtol=0)


def test_the_weight_has_the_gain_as_its_norm():
    conv = NormedConv(3, 4, 5)
    torch.nn.init.uniform_(conv.weight_g, 0.5, 2.0)

    norm = conv.weight.flatten(1).norm(dim=1)

    torch.testing.assert_close(norm, conv.weight_g.flatten())


def test_draws_of_a_row_do_not_depend_on_its_batch():
    def draw(seeds, samples):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return row_draws(generators, samples, 9)

    phases, noise = draw([4, 5, 6], [256, 1024, 512])
    phase, alone = draw([4], [256])

    assert torch.equal(phase[0], phases[0]) and torch.equal(alone[0], noise[0, :, :256])
    assert phases.shape == (3, 9) and phases.abs().max() <= torch.pi
    assert not noise[0, :, 256:].any()


def test_it_stays_frozen_and_in_eval_mode(hift):
    assert not HiftGenerator(CONFIG).training
    torch.nn.ModuleList([hift]).train()

    assert not any(module.training for module in hift.modules())
    assert not any(parameter.requires_grad for parameter in hift.parameters())


@pytest.mark.parametrize("values", [{"upsample_rates": (8,)}, {"channels": 18}])
def test_a_config_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="for every upsampling rate"):
        HiftConfig(**values)
