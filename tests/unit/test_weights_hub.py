"""The hub: what is fetched, how long we wait, what its cache is checked for."""

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_hub import FakeHub

from espnet_taste.weights import hub
from espnet_taste.weights.hub import HubMiss, choose_files, download_snapshot


@pytest.fixture
def silent_server(monkeypatch):
    """A server that takes connections and never answers; counts them."""
    from huggingface_hub import constants

    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: _take_all(server, taken), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(hub, "LIMIT_S", 0.5)
        monkeypatch.setattr(hub, "_unreachable", {})
        yield taken


def _take_all(server, taken):
    while True:
        try:
            taken.append(server.accept())
        except OSError:
            return


def test_a_hub_that_does_not_answer_is_waited_for_once(silent_server):
    start = time.monotonic()
    with pytest.raises(HubMiss, match="cannot be reached"):
        download_snapshot("some/model")
    assert time.monotonic() - start < 5
    asked = len(silent_server)
    assert asked >= 1

    start = time.monotonic()
    with pytest.raises(HubMiss, match="cannot be reached"):
        download_snapshot("other/model")
    assert time.monotonic() - start < 0.3
    assert len(silent_server) == asked


def test_one_format_is_chosen_of_a_repository():
    names = [
        *("config.json", "model.safetensors", "model.fp32-00001-of-00002.safetensors"),
        *("pytorch_model.bin", "tf_model.h5", "tokenizer.json", "vocab.json"),
        *("onnx/model.onnx", "original/consolidated.pth", "README.md", "merges.txt"),
    ]
    assert choose_files(names) == [
        *("config.json", "merges.txt", "model.safetensors"),
        *("tokenizer.json", "vocab.json"),
    ]


def test_shards_are_chosen_with_their_index():
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    names = ["model.safetensors.index.json", *shards, "pytorch_model.bin"]
    assert choose_files(names) == sorted(names[:-1])


def test_pickles_are_chosen_only_where_there_is_nothing_else():
    assert choose_files(["pytorch_model.bin", "config.json", "flax_model.msgpack"]) == [
        *("config.json", "pytorch_model.bin")
    ]
    assert choose_files(["model.bin", "vocabulary.json"]) == [
        *("model.bin", "vocabulary.json")
    ]


def test_a_damaged_file_in_the_hub_cache_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPNET_TASTE_CACHE", str(tmp_path / "cache"))
    blob = tmp_path / hashlib.sha256(b"content").hexdigest()
    blob.write_bytes(b"content")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    hub._check_blob(link)

    blob.write_bytes(b"c0ntent, longer")
    with pytest.raises(ValueError, match="model.safetensors: damaged.*delete"):
        hub._check_blob(link)


FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights" * 50,
    "pytorch_model.bin": b"pickle",
    "README.md": b"",
}


def resolve_in_another_process(hub_server, tmp_path, name):
    """huggingface_hub reads its environment when imported: so a fresh process."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_ENDPOINT": hub_server.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "ESPNET_TASTE_CACHE": str(tmp_path / "cache"),
    }
    for switch in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ESPNET_TASTE_OFFLINE"):
        environment.pop(switch, None)
    return subprocess.run(
        [sys.executable, "-m", "espnet_taste.bin.fetch_weights", name],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_a_reachable_hub_gives_safetensors_and_no_pickle(tmp_path):
    with FakeHub("some/model", FILES) as server:
        result = resolve_in_another_process(server, tmp_path, "some/model")
        assert result.returncode == 0, result.stderr
        missing = resolve_in_another_process(server, tmp_path, "some/other")

    _, folder, digest = result.stdout.strip().split("\t")
    assert digest == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
    fetched = sorted(path.name for path in Path(folder).iterdir())
    assert fetched == ["config.json", "model.safetensors", "tokenizer.json"]
    assert "hub: no such model, or a private one" in missing.stderr
