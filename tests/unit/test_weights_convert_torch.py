"""Checkpoints to safetensors: what is kept, what is folded, what is refused."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from espnet_taste.weights.convert_torch import (
    convert_ge2e,
    convert_hifigan,
    convert_pickled_folder,
    fold_weight_norm,
    join_parts,
    load_pickle,
)


class Malicious:
    """Pickles as a call, which a naive loader would make."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"weight": Malicious(tmp_path / "ran")}, tmp_path / "model.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "ran"), 2))

    for name in ("model.pt", "raw.pt"):
        with pytest.raises(ValueError, match=f"{name}: refused"):
            load_pickle(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match="model.pt: refused"):
        load_pickle(tmp_path / "model.pt")


def test_only_the_network_of_the_speaker_encoder_is_kept(tmp_path):
    lstm, linear = nn.LSTM(5, 6, 2), nn.Linear(6, 7)
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    state |= {f"linear.{name}": value for name, value in linear.state_dict().items()}
    kept = dict(state)
    state |= {"similarity_weight": torch.ones(1), "similarity_bias": torch.ones(1)}
    source = {"step": 3, "model_state": state, "optimizer_state": {}}
    torch.save(source, tmp_path / "pretrained.pt")

    convert_ge2e({"pretrained.pt": tmp_path / "pretrained.pt"}, tmp_path)

    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == kept.keys()
    for name, value in kept.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)
    config = json.loads((tmp_path / "config.json").read_text())
    sizes = ("num_mels", "hidden_dim", "num_layers", "embedding_dim")
    assert [config[size] for size in sizes] == [5, 6, 2, 7]


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 4, 5), nn.ConvTranspose1d(3, 4, 5)])
def test_folded_weights_are_those_that_pytorch_computes(layer):
    normalised = nn.utils.parametrizations.weight_norm(layer)
    parts = normalised.parametrizations.weight
    with torch.no_grad():
        parts.original0.mul_(torch.rand_like(parts.original0) + 0.5)
    state = {
        "a.weight_g": parts.original0.detach(),
        "a.weight_v": parts.original1.detach(),
        "a.bias": layer.bias.detach(),
    }
    folded = fold_weight_norm(state)

    assert folded.keys() == {"a.weight", "a.bias"}
    torch.testing.assert_close(folded["a.weight"], normalised.weight.detach())


def test_a_generator_keeps_its_settings_and_no_training_options(tmp_path):
    released = {
        "resblock": "1",
        "batch_size": 16,
        "upsample_rates": [8, 8],
        "sampling_rate": 22050,
        "fmax": 8000,
        "fmax_for_loss": None,
        "num_mels": 80,
        "num_workers": 4,
    }
    (tmp_path / "config.json").write_text(json.dumps(released))
    state = {"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.eye(2)}
    torch.save({"generator": state}, tmp_path / "generator_x.pth.tar")
    files = {path.name: path for path in tmp_path.iterdir()}
    target = tmp_path / "target"
    target.mkdir()

    convert_hifigan(files, target)

    config = json.loads((target / "config.json").read_text())
    kept = ("resblock", "upsample_rates", "sampling_rate", "fmax", "num_mels")
    expected = {name: released[name] for name in kept}
    assert config == {"model_type": "hifigan", **expected}
    assert load_file(target / "model.safetensors").keys() == {"a.weight"}

    with pytest.raises(ValueError, match="expected one HiFi-GAN generator"):
        convert_hifigan({"config.json": tmp_path / "config.json"}, target)


def test_parts_are_joined_in_order_of_their_numbers(tmp_path):
    files = {}
    for number in range(1, 12):
        path = tmp_path / f"model.bin.part{number}"
        path.write_bytes(b"%d," % number)
        files[path.name] = path
    files["config.json"] = tmp_path / "source.json"
    files["config.json"].write_text("{}")
    target = tmp_path / "target"
    target.mkdir()

    join_parts(files, target)

    assert (target / "model.bin").read_bytes() == b"1,2,3,4,5,6,7,8,9,10,11,"
    assert sorted(path.name for path in target.iterdir()) == [
        *("config.json", "model.bin")
    ]


def test_a_folder_with_pickled_weights_becomes_safetensors(tmp_path):
    tied = torch.rand(3, 2)
    parts = (
        {"embed": tied, "head": tied, "view": torch.rand(4, 3).T},
        {"other": torch.rand(2)},
    )
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number, part in enumerate(parts):
        torch.save(part, source / f"pytorch_model-0000{number}-of-00002.bin")
    (source / "pytorch_model.bin.index.json").write_text("{}")
    (source / "config.json").write_text("{}")

    convert_pickled_folder(source, target)

    assert sorted(path.name for path in target.iterdir()) == [
        *("config.json", "model.safetensors")
    ]
    loaded = load_file(target / "model.safetensors")
    expected = parts[0] | parts[1]
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(loaded[name], value, rtol=0, atol=0)


def test_pickles_of_the_hub_are_converted_once_into_our_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    from espnet_taste.weights.resolver import resolve

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    home = tmp_path / "hf" / "models--some--pickled"
    snapshot = home / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("0" * 40)
    torch.save({"weight": torch.ones(2)}, snapshot / "pytorch_model.bin")
    for name in ("config.json", "tokenizer.json"):
        (snapshot / name).write_text("{}")

    folder = resolve("some/pickled", cache_dir=tmp_path / "cache", offline=True)

    assert folder == tmp_path / "cache" / "weights" / "some--pickled"
    assert load_file(folder / "model.safetensors").keys() == {"weight"}
    (snapshot / "pytorch_model.bin").unlink()
    again = resolve("some/pickled", cache_dir=tmp_path / "cache", offline=True)
    assert again == folder
