"""CAM++: what the network hears, what comes out, refusals."""

import sys

import numpy as np
import pytest
import tiny_onnx
import torch

from espnet_taste.bin.extract_speakers import main
from espnet_taste.units import campplus
from espnet_taste.units.campplus import CamPlus, find_campplus, speaker_features
from espnet_taste.units.speaker import SpeakerEncoder
from espnet_taste.units.speakers import open_speaker_encoder

pytest.importorskip("onnxruntime")

PROJECTION = np.random.default_rng(0).standard_normal((80, 6)).astype(np.float32)


def write_network(path, width=80, inputs=("fbank",)):
    """Write a network: mean square of the features over time, projected."""
    nodes = [
        tiny_onnx.node("Mul", [inputs[0], inputs[-1]], ["square"]),
        tiny_onnx.node("ReduceMean", ["square"], ["mean"], axes=[1], keepdims=0),
        tiny_onnx.node("MatMul", ["mean", "projection"], ["embedding"]),
    ]
    shapes = {name: ("B", "M", width) for name in inputs}
    weights = {"projection": PROJECTION[:width]}
    path.write_bytes(tiny_onnx.model(nodes, weights, shapes, {"embedding": ("B", 6)}))
    return path


@pytest.fixture
def path(tmp_path):
    return write_network(tmp_path / "campplus.onnx")


def noise(num_samples=16000):
    rng = np.random.default_rng(1)
    return (0.1 * rng.standard_normal(num_samples)).astype(np.float32)


def test_an_embedding_is_the_networks_of_norm_one(path):
    features = speaker_features(torch.from_numpy(noise())).numpy()
    expected = np.mean(features**2, axis=0) @ PROJECTION

    embedding = CamPlus(path).embed(noise())

    assert embedding.shape == (6,) and embedding.dtype == np.float32
    np.testing.assert_allclose(
        embedding, expected / np.linalg.norm(expected), rtol=1e-4, atol=1e-5
    )


def test_long_recordings_are_heard_in_equal_parts(path, monkeypatch):
    """An hour at once took 15 GB; a part of zeros has no speaker."""
    whole = CamPlus(path).embed(noise(40000))
    monkeypatch.setattr(campplus, "MAX_SAMPLES", 40000)
    assert np.array_equal(CamPlus(path).embed(noise(40000)), whole)
    longer = np.concatenate([noise(48000), np.zeros(30000, np.float32), noise(18000)])
    parts = [longer[:32000], longer[32000:64000], longer[64000:]]
    network = CamPlus(path)._embed

    embedding = CamPlus(path).embed(longer)

    mean = np.mean([network(part) for part in parts], 0)
    np.testing.assert_allclose(embedding, mean / np.linalg.norm(mean), rtol=1e-5)
    lone = np.concatenate([noise(30000), np.zeros(30000, np.float32)])
    heard, embed = [], CamPlus._embed
    monkeypatch.setattr(
        CamPlus,
        "_embed",
        lambda self, part: heard.append(len(part)) or embed(self, part),
    )
    assert np.array_equal(CamPlus(path).embed(lone), CamPlus(path).embed(noise(30000)))
    assert heard == [30000, 30000]


def test_the_features_have_no_mean_over_time():
    features = speaker_features(torch.from_numpy(noise()))

    assert features.shape == (98, 80)
    torch.testing.assert_close(features.mean(0), torch.zeros(80), atol=1e-4, rtol=0)


@pytest.mark.parametrize("speech", [np.zeros(800, np.float32), noise(399)])
def test_too_little_speech_is_refused(path, speech):
    with pytest.raises(ValueError, match="400 samples.*not silent"):
        CamPlus(path).embed(speech)


def test_an_absent_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="no CAM.*speaker_embed.onnx of Media"):
        CamPlus(tmp_path / "campplus.onnx")


def test_an_absent_package_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    with pytest.raises(ValueError, match=r"onnxruntime: install espnet-taste\[s3\]"):
        CamPlus(path)


def test_other_networks_are_refused(tmp_path):
    path = write_network(tmp_path / "other.onnx", width=40)
    with pytest.raises(ValueError, match=r"one input \(1, M, 80\).*'M', 40"):
        CamPlus(path)
    path = write_network(tmp_path / "two.onnx", inputs=("fbank", "length"))
    with pytest.raises(ValueError, match="one input"):
        CamPlus(path)
    path.write_bytes(b"no network")
    with pytest.raises(ValueError, match="not a readable ONNX network"):
        CamPlus(path)


def test_a_name_chooses_the_encoder(path, tmp_path, monkeypatch):
    assert isinstance(open_speaker_encoder(str(path)), CamPlus)
    assert isinstance(open_speaker_encoder(str(tmp_path)), CamPlus)
    assert find_campplus("resemblyzer/ge2e") is None
    path.rename(tmp_path / "speaker_embed.onnx")
    assert find_campplus(str(tmp_path)) == tmp_path / "speaker_embed.onnx"

    from safetensors.torch import save_file

    folder = tmp_path / "ge2e"
    folder.mkdir()
    save_file(SpeakerEncoder().state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    assert isinstance(open_speaker_encoder(str(folder)), SpeakerEncoder)


def test_the_command_writes_embeddings(path, tmp_path):
    import kaldiio
    import soundfile

    data = tmp_path / "data"
    data.mkdir()
    soundfile.write(data / "a.flac", noise(), 16000)
    (data / "wav.scp").write_text(f"a {data / 'a.flac'}\n")
    output = tmp_path / "out"
    options = ["--data_dir", str(data), "--output_dir", str(output)]

    assert main([*options, "--model", str(path)]) == 0

    (embedding,) = kaldiio.load_scp(str(output / "spembs.scp")).values()
    assert embedding.shape == (6,)
    assert main([*options, "--model", str(tmp_path / "none.onnx")]) == 1
