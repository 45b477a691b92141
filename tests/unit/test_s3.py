"""S3 units: weights of both kinds, single utterances, folders, refusals."""

import sys

import numpy as np
import pytest
import tiny_onnx
import torch
import yaml
from safetensors.torch import save_file

from espnet_taste.bin.train_units import main
from espnet_taste.units.build import learn_units, load_units, read_units_info
from espnet_taste.units.s3 import S3Units, build_network

SIZES = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 8,
    "n_audio_head": 2,
    "n_audio_layer": 2,
    "n_codebook_size": 10,
}
# What the released file calls the inputs of its convolutions.
CONV_INPUTS = {
    "encoder.conv1.weight": "onnx::Conv_1519",
    "encoder.conv1.bias": "onnx::Conv_1520",
    "encoder.conv2.weight": "onnx::Conv_1521",
    "encoder.conv2.bias": "onnx::Conv_1522",
}
CODEBOOK_NODE = "/quantizer/rq/model/layers.0/_codebook/Pow_1"


@pytest.fixture
def network():
    """A small random network of the package; only make test-units has it."""
    pytest.importorskip(
        "s3tokenizer", reason="no s3tokenizer: run make test-units or make test-all"
    )
    torch.manual_seed(0)
    network = build_network(SIZES)
    # Random states lie close together: spread codes to have more than one unit.
    state = network.state_dict()
    state["encoder.conv1.weight"] *= 5
    state["quantizer._codebook.embed"].normal_(0, 0.3)
    network.load_state_dict(state)
    return network


def node_name(name):
    """Return the name of the released graph's node that a parameter belongs to."""
    path, _, kind = name.removeprefix("encoder").rpartition(".")
    norm = path.endswith("_ln")
    operation = {"weight": "MatMul", "bias": "Add"}
    if norm:
        operation = {"weight": "Mul", "bias": "Add_1"}
    _, _, block, *rest = path.split(".", 3)
    inside = rest[0].replace(".", "/", 1).replace("mlp/", "mlp/mlp.")
    return f"/blocks.{block}/{inside}/{operation[kind]}"


def write_onnx(path, state):
    """Write the weights as the released file holds them, without its computation."""
    nodes, tensors = [], {}
    for number, (name, value) in enumerate(state.items()):
        values = value.numpy()
        if name in CONV_INPUTS:
            key, node = CONV_INPUTS[name], f"/conv{number}"
        elif name == "encoder.positional_embedding":
            key, node = "encoders.positional_embedding", "/Add"
        else:
            key = f"onnx::{number}"
            codebook = name.startswith("quantizer")
            node = CODEBOOK_NODE if codebook else node_name(name)
            values = values.T  # matrices are multiplied from the right
        tensors[key] = values
        nodes.append(tiny_onnx.node("MatMul", ["x", key], ["y"], name=node))
    path.write_bytes(tiny_onnx.model(nodes, tensors, {"x": (1,)}, {"y": (1,)}))


def noise(num_samples, seed=0):
    rng = np.random.default_rng(seed)
    loudness = np.repeat(rng.uniform(0.0, 0.5, num_samples // 800 + 1), 800)
    speech = rng.standard_normal(num_samples) * loudness[:num_samples]
    return speech.astype(np.float32)


@pytest.fixture
def weights(tmp_path, network):
    save_file(network.state_dict(), tmp_path / "s3.safetensors")
    return tmp_path / "s3.safetensors"


def test_units_of_speech(weights):
    units = S3Units.open({"weights": str(weights), "network": SIZES})
    speech = [noise(16000), noise(8111, 1), noise(320, 2)]

    together = units.extract(speech)

    assert [len(row) for row in together] == [50, 25, 1]
    assert together[0].dtype == np.int64 and len(set(together[0])) > 1
    assert min(map(min, together)) >= 0 and max(map(max, together)) < units.num_units
    for row, waveform in zip(together, speech, strict=True):
        np.testing.assert_array_equal(units.extract([waveform])[0], row)
    assert (units.num_units, units.unit_rate_hz) == (10, 50.0)
    assert units.unit_vectors().shape == (10, 8)


def test_the_released_kind_of_file_gives_the_same_network(tmp_path, network, weights):
    write_onnx(tmp_path / "speech_tokenizer_v1.onnx", network.state_dict())
    conf = {"weights": str(tmp_path / "speech_tokenizer_v1.onnx"), "network": SIZES}

    units = S3Units.open(conf)

    for name, value in units.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]), name
    expected = S3Units.open({**conf, "weights": str(weights)})
    np.testing.assert_array_equal(
        units.extract([noise(9000)])[0], expected.extract([noise(9000)])[0]
    )


def test_the_network_is_frozen_and_in_eval_mode(weights):
    units = S3Units.open({"weights": str(weights), "network": SIZES})

    assert not any(module.training for module in units.network.modules())
    assert not any(p.requires_grad for p in units.network.parameters())


def test_the_stage_makes_a_folder_of_its_own(weights, tmp_path):
    """Chosen in YAML like the other units, and whole without the weight file."""
    config = {
        "units": "s3",
        "units_conf": {"weights": str(weights), "network": SIZES},
    }
    (tmp_path / "units.yaml").write_text(yaml.safe_dump(config))
    expected = learn_units(config, iter(())).extract([noise(16000)])[0]
    data, output = tmp_path / "data", tmp_path / "units"
    data.mkdir()
    (data / "wav.scp").write_text("a no.flac\n")
    options = ["--data_dir", str(data), "--output_dir", str(output)]

    assert main(["--config", str(tmp_path / "units.yaml"), *options]) == 0
    weights.unlink()

    info = read_units_info(output)
    assert (info.units, info.num_units, info.unit_rate_hz) == ("s3", 10, 50.0)
    np.testing.assert_array_equal(
        load_units(output).extract([noise(16000)])[0], expected
    )


@pytest.mark.parametrize(
    ("num_samples", "message"),
    [(319, "too short for one unit"), (30 * 16000 + 1, "end at 30 s.*max_wav")],
)
def test_lengths_that_have_no_units_are_refused(weights, num_samples, message):
    units = S3Units.open({"weights": str(weights), "network": SIZES})

    with pytest.raises(ValueError, match=message):
        units.extract([np.zeros(num_samples, np.float32)])


def test_files_that_do_not_fit_are_named(weights, tmp_path):
    for size, value in (("n_audio_layer", 1), ("n_codebook_size", 11)):
        conf = {"weights": str(weights), "network": {**SIZES, size: value}}
        with pytest.raises(ValueError, match="not the weights of this S3 tokenizer"):
            S3Units.open(conf)
    with pytest.raises(ValueError, match=r"network: unknown \['layers'\]"):
        S3Units.open({"weights": str(weights), "network": {"layers": 1}})
    for name, message in (("s3.pt", "expected an .onnx"), ("s3.onnx", "not the ONNX")):
        (tmp_path / name).write_bytes(b"\xff" * 9)
        with pytest.raises(ValueError, match=message):
            S3Units.open({"weights": str(tmp_path / name), "network": SIZES})


def test_absent_weights_are_named_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="speech_tokenizer_v1.onnx of CosyVoice"
    ):
        S3Units.open({"weights": str(tmp_path / "none.onnx")})
    with pytest.raises(ValueError, match=r"no option \['weight'\]"):
        S3Units.open({"weight": "none.onnx"})


def test_an_absent_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3tokenizer.model", None)
    (tmp_path / "s3.onnx").write_bytes(b"")

    with pytest.raises(ValueError, match=r"s3tokenizer: install espnet-taste\[s3\]"):
        S3Units.open({"weights": str(tmp_path / "s3.onnx")})
