"""The command converts there and back, prints its report, and fails in one line."""

import json
from dataclasses import replace

import pytest
from released_checkpoint import read_folder
from tiny_released import BACKBONE, CONFIG, WHISPER, released_state, write_checkpoint

from espnet_taste.bin import convert

# The command has no option for what is a constant of the released code.
RELEASED_TASTE = replace(BACKBONE, taste_feedforward=2048, taste_layers=2)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "whisper.json").write_text(json.dumps(WHISPER))
    return write_checkpoint(
        tmp_path / "source", released_state(CONFIG, RELEASED_TASTE), num_shards=1
    )


def to_ours(source, *options):
    folder = source.parent
    return convert.main(
        [
            *("--to", "espnet_taste", "--source", str(source)),
            *("--target", str(folder / "ours")),
            *("--whisper_config", str(folder / "whisper.json"), *options),
        ]
    )


def test_there_and_back(source, tmp_path, capsys):
    assert to_ours(source) == 0
    printed = capsys.readouterr().out
    assert "dropped: 18 tensors\n  18 because the released model never" in printed
    assert "audio_tower.vq.rvq.mlps.0.proj_in.weight" in printed

    paths = ["--source", str(tmp_path / "ours"), "--target", str(tmp_path / "back")]
    assert convert.main(["--to", "official", *paths, "--max_shard_gb", "1e-5"]) == 0
    used = {name for name in read_folder(source) if ".mlps." not in name}
    assert set(read_folder(tmp_path / "back")) == used
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1


def test_failures_are_one_line(source, tmp_path, capsys):
    assert to_ours(source, "--sha256", f"model.safetensors={'0' * 64}") == 1
    assert "convert: " in (error := capsys.readouterr().err)
    assert "has sha256" in error and error.count("\n") == 1

    assert to_ours(source, "--sha256", "model.safetensors") == 1
    assert "give FILE=DIGEST" in capsys.readouterr().err

    (tmp_path / "whisper.json").write_text('{"d_model": 16}')
    assert to_ours(source) == 1
    assert "is no Whisper config: it lacks ['activation_" in capsys.readouterr().err


def test_the_released_whisper_is_the_default(source, tmp_path, capsys):
    paths = ["--source", str(source), "--target", str(tmp_path / "ours")]
    assert convert.main(["--to", "espnet_taste", *paths]) == 1
    error = capsys.readouterr().err
    assert "d_model of the Whisper config 1280" in error
    assert "give the config of the Whisper" in error
