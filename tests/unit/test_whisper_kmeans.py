"""Units from Whisper layers: rate, determinism, storage, refusals."""

import json

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperModel

from espnet_taste.bin import extract_units, train_units
from espnet_taste.data.kaldi import read_scp_arrays
from espnet_taste.units.build import choose_units, load_units, read_units_info
from espnet_taste.units.whisper_features import WhisperFeatures
from espnet_taste.units.whisper_kmeans import (
    WhisperKMeans,
    fit_codebook,
    principal_components,
    read_units_conf,
)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A Whisper of width 16 with random weights and a window of 3 s."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    sizes = {f"{side}_layers": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
    config = WhisperConfig(
        vocab_size=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        num_mel_bins=80,
        d_model=16,
        max_source_positions=150,
        **sizes,
    )
    WhisperModel(config).save_pretrained(folder)
    return folder


def noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(int(seconds * 16000)).astype(np.float32) * 0.1


def conf(whisper, **changes):
    values = {"model": str(whisper), "layer": 1, "num_units": 8, "pca_dim": 4}
    return read_units_conf({**values, "num_iterations": 3, **changes})


def learn(whisper, **changes):
    return WhisperKMeans.learn(conf(whisper, **changes), [noise(2, 1), noise(2, 2)])


@pytest.mark.parametrize(("rate", "expected"), [(50, 51), (25, 25)])
def test_units_come_at_their_rate(whisper, rate, expected):
    (units,) = learn(whisper, unit_rate_hz=rate).extract([noise(1.001)])

    assert units.dtype == np.int64 and units.shape == (expected,)
    assert 0 <= units.min() and units.max() < 8


def test_an_utterance_does_not_depend_on_its_neighbours(whisper):
    extractor = learn(whisper)
    speech = [noise(0.5, 3), noise(1.5, 4)]

    together = extractor.extract(speech)

    for units, waveform in zip(together, speech):
        np.testing.assert_array_equal(units, extractor.extract([waveform])[0])


def test_audio_longer_than_the_window_is_encoded_in_parts(whisper):
    features = WhisperFeatures(whisper, layer=1)
    speech = noise(7.01)

    frames = features(speech)

    assert frames.shape == (351, 16)
    torch.testing.assert_close(frames[:150], features(speech[: 3 * 16000]))


def test_learning_is_a_function_of_speech_and_seed(whisper):
    first, second = learn(whisper), learn(whisper)

    for name, tensor in first.codebook.items():
        assert torch.equal(tensor, second.codebook[name]), name
    other = learn(whisper, seed=1).codebook["means"]
    assert not torch.equal(first.codebook["means"], other)


def test_save_and_load(whisper, tmp_path):
    extractor = learn(whisper)
    extractor.save(tmp_path)

    loaded = load_units(tmp_path)

    assert read_units_info(tmp_path).num_units == loaded.num_units == 8
    np.testing.assert_array_equal(
        loaded.extract([noise(1)])[0], extractor.extract([noise(1)])[0]
    )


def test_units_of_other_weights_are_refused(whisper, tmp_path):
    learn(whisper).save(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**facts, "model_sha256": "0"}))

    with pytest.raises(ValueError, match="learned with other weights"):
        load_units(tmp_path)


def test_features_agree_with_transformers(whisper):
    """Same states as the model's own encoder on a full window of its own frontend."""
    from transformers import WhisperFeatureExtractor

    speech = noise(3)
    frontend = WhisperFeatureExtractor(chunk_length=3)
    mel = frontend(speech, sampling_rate=16000, return_tensors="pt").input_features
    model = WhisperModel.from_pretrained(whisper).eval()
    with torch.no_grad():
        states = model.encoder(mel, output_hidden_states=True).hidden_states[1][0]

    frames = WhisperFeatures(whisper, layer=1)(speech)

    # The frontends differ at the edges, where theirs reflects and ours pads zeros.
    torch.testing.assert_close(frames[4:-4], states[4:-4], atol=0.02, rtol=0.02)


def test_features_stay_in_eval_mode(whisper):
    features = WhisperFeatures(whisper, layer=2).train()

    assert not any(module.training for module in features.modules())


def test_whitened_components_have_variance_one():
    rows = torch.randn(500, 6) * torch.tensor([9.0, 1, 5, 1, 1, 1])
    rows = rows - rows.mean(0)

    projected = rows @ principal_components(rows, 2, whiten=True)

    torch.testing.assert_close(projected.var(0), torch.ones(2), atol=0.01, rtol=0)


def test_too_little_speech_names_the_remedy(whisper):
    with pytest.raises(ValueError, match="10 units' worth.*lower num_units"):
        fit_codebook([torch.randn(10, 16)], conf(whisper, num_units=64))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 3}, r"unknown \['layers'\]; known are"),
        ({"unit_rate_hz": 30}, "50 divided by a whole number, got 30"),
        ({"num_units": 1}, "at least 2"),
    ],
)
def test_bad_configuration_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        read_units_conf(values)


def test_an_unknown_kind_lists_the_choices():
    with pytest.raises(
        ValueError, match=r"'s4' is not one of .*whisper_kmeans.*whisper_vq"
    ):
        choose_units("s4")


def test_commands(whisper, tmp_path):
    import soundfile

    for key in ("a", "b"):
        soundfile.write(tmp_path / f"{key}.wav", noise(1, ord(key)), 16000)
    (tmp_path / "wav.scp").write_text("a a.wav\nb b.wav\n")
    config = tmp_path / "units.yaml"
    config.write_text(
        f"units: whisper_kmeans\nunits_conf: {{model: {whisper}, layer: 1, "
        "num_units: 8, pca_dim: 4, num_iterations: 2}\n"
    )
    data = ["--data_dir", str(tmp_path)]
    units_dir = str(tmp_path / "units")

    assert (
        train_units.main([*data, "--config", str(config), "--output_dir", units_dir])
        == 0
    )
    out = tmp_path / "features"
    argv = [*data, "--units_dir", units_dir, "--output_dir", str(out)]
    assert extract_units.main(argv) == 0

    assert read_scp_arrays(out / "units.scp")["b"].shape == (50,)
    assert (out / "units_shape").read_text() == "a 50\nb 50\n"
