"""HiFT equals the released vocoder: source, network, waveform."""

import json
import math

import pytest
import torch

from espnet_taste.decoder.hift import HiftConfig, HiftGenerator

PREFIX = "hift."


@pytest.fixture(scope="module")
def case(golden):
    return golden("hift")


@pytest.fixture(scope="module")
def hift(case):
    values = case.config
    config = HiftConfig(
        num_mels=values["in_channels"],
        channels=values["base_channels"],
        f0_channels=values["f0_predictor_channels"],
        sample_rate_hz=values["sampling_rate"],
        harmonics=values["nb_harmonics"],
        sine_amplitude=values["nsf_alpha"],
        sine_noise=values["nsf_sigma"],
        voiced_above_hz=values["nsf_voiced_threshold"],
        upsample_rates=tuple(values["upsample_rates"]),
        upsample_kernel_sizes=tuple(values["upsample_kernel_sizes"]),
        fft_size=values["istft"]["n_fft"],
        fft_hop=values["istft"]["hop"],
        resblock_kernel_sizes=tuple(values["resblock_kernel_sizes"]),
        resblock_dilations=tuple(values["resblock_dilations"]),
        source_kernel_sizes=tuple(values["source_resblock_kernel_sizes"]),
        source_dilations=tuple(values["source_resblock_dilations"]),
        slope=values["lrelu_slope"],
        last_slope=values["last_lrelu_slope"],
        audio_limit=values["audio_limit"],
        magnitude_limit=values["magnitude_clip"],
    )
    model = HiftGenerator(config)
    model.load_state_dict(case.state(PREFIX))
    return model


def inputs(case):
    """Yield the number of every row with its mel frames and their count."""
    for row in range(len(case.info["mel_frames"])):
        mel = case.input(f"{row}.mel")
        yield row, mel, torch.tensor([mel.size(2)])


def test_fundamental_frequency(case, hift):
    for row, mel, lengths in inputs(case):
        f0 = hift.predict_f0(mel, lengths)

        case.check(f"{row}.f0", f0)
        per_sample = f0.repeat_interleave(hift.config.hop_size, dim=1)
        case.check(f"{row}.uv", hift.m_source.voiced(per_sample))


def test_source(case, hift):
    for row, mel, lengths in inputs(case):
        f0 = hift.predict_f0(mel, lengths)
        f0 = f0.repeat_interleave(hift.config.hop_size, dim=1)
        draws = case.input(f"{row}.phase"), case.input(f"{row}.sine_noise")

        sines = hift.m_source.sines(f0, *draws)
        source = hift.m_source(f0, *draws)

        first = case.output(f"{row}.sine_waves").size(2)
        case.check(f"{row}.sine_waves", sines[..., :first])
        case.check(f"{row}.source", source[:, None])
        spectrum = hift.source_spectrum(source, lengths)
        case.check(f"{row}.source_stft", spectrum)


def test_network_on_a_given_source(case, hift):
    for row, mel, lengths in inputs(case):
        source = case.input(f"{row}.given_source")[:, 0]
        spectrum = hift.source_spectrum(source, lengths)

        output = hift.predict_spectrum(mel, lengths, spectrum)
        case.check(f"{row}.decoded_conv_post", output)
        case.check(f"{row}.decoded", hift.decode(mel, lengths, source))


def test_waveform(case, hift):
    for row, mel, lengths in inputs(case):
        phase, noise = case.input(f"{row}.phase"), case.input(f"{row}.sine_noise")
        assert phase.abs().max() <= math.pi

        case.check(f"{row}.waveform", hift(mel, lengths, phase, noise))


def test_names_and_shapes_of_the_released_file(golden_dir):
    path = golden_dir / "voice_generator_keys.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    released = json.loads(path.read_text(encoding="utf-8"))
    expected = {
        name: (tuple(shape), dtype)
        for name, (shape, dtype) in released.items()
        if name.startswith(PREFIX)
    }
    with torch.device("meta"):
        state = HiftGenerator(HiftConfig()).state_dict(prefix=PREFIX)
    assert {
        name: (tuple(value.shape), str(value.dtype)) for name, value in state.items()
    } == expected
