"""What a converted folder holds beside tensors: tokenizer files, paths in configs."""

from pathlib import Path

from tiny_released import BACKBONE, released_state, write_checkpoint

from espnet_taste.convert.architecture import read_mapping
from espnet_taste.convert.checkpoint import Options, convert

TO_OURS = {"to": "espnet_taste", "options": Options(BACKBONE)}
TOKENIZER = {"tokenizer_config.json", "vocab.json", "merges.txt", "tokenizer.model"}
WEIGHTS = {
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
}


def test_a_whole_llm_beside_its_tokenizer_is_left_alone(tmp_path):
    source = write_checkpoint(tmp_path / "source", released_state())
    (source / "llama_tokenizer").mkdir()
    converted = {"config.json", "model.safetensors"}
    for name in TOKENIZER | WEIGHTS | converted:
        (source / "llama_tokenizer" / name).write_text("another")

    convert(source, tmp_path / "ours", **TO_OURS)

    files = {path.name: path for path in (tmp_path / "ours" / "llm").iterdir()}
    assert set(files) == TOKENIZER | converted
    for name, path in files.items():
        assert (path.read_bytes() == b"another") == (name in TOKENIZER)


def test_configs_name_their_parts_from_anywhere(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "source", released_state())
    monkeypatch.chdir(tmp_path)

    convert(Path("source"), Path("made") / "ours", **TO_OURS)

    monkeypatch.chdir("/")
    ours = tmp_path / "made" / "ours"
    for part, name in (("taste", "whisper"), ("slm", "llm")):
        config = read_mapping(ours / part / "config.yaml")
        assert Path(config[name]).samefile(ours / name)
