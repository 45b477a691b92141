"""What a converted folder holds beside tensors: paths in its configs."""

from pathlib import Path

from tiny_released import BACKBONE, released_state, write_checkpoint

from espnet_taste.convert.architecture import read_mapping
from espnet_taste.convert.checkpoint import Options, convert

TO_OURS = {"to": "espnet_taste", "options": Options(BACKBONE)}


def test_configs_name_their_parts_from_anywhere(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source", released_state())
    monkeypatch.chdir(tmp_path)

    convert(Path("source"), Path("made") / "ours", **TO_OURS)

    monkeypatch.chdir("/")
    ours = tmp_path / "made" / "ours"
    for part, name in (("taste", "whisper"), ("slm", "llm")):
        config = read_mapping(ours / part / "config.yaml")
        assert Path(config[name]).samefile(ours / name)
