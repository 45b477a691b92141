"""Trainings that do not fit their Whisper: which options are named."""

import json
from pathlib import Path

import pytest

from espnet_taste.bin.check_whisper import main
from espnet_taste.tasks.whisper_fit import find_misfits

CONF = Path(__file__).parents[2] / "conf"
ENGLISH, MULTILINGUAL, LARGE_V3 = 51864, 51865, 51866


@pytest.fixture
def whisper(tmp_path):
    """Make a folder that tells the sizes of a Whisper."""

    def make(name, width, vocab):
        folder = tmp_path / name
        folder.mkdir()
        sizes = {"model_type": "whisper", "d_model": width, "vocab_size": vocab}
        (folder / "config.json").write_text(json.dumps(sizes))
        (folder / "model.safetensors").touch()
        return str(folder)

    return make


@pytest.fixture
def config(tmp_path):
    """Make a shipped training file whose text table is a folder."""

    def make(name, table, width=384):
        text = (CONF / name).read_text().replace("openai/whisper-tiny.en", table)
        path = tmp_path / Path(name).name
        path.write_text(text.replace("_dim: 384", f"_dim: {width}"))
        return path

    return make


def test_every_option_that_does_not_fit_is_named(whisper, config, capsys):
    base = whisper("base", 512, MULTILINGUAL)
    path = config("train_taste.yaml", whisper("tiny.en", 384, ENGLISH))

    assert main(["--whisper", base, "--config", str(path), str(path)]) == 1

    error = capsys.readouterr().err
    for text in (
        "decoder_conf: taste_dim is 384, not 512",
        "quantizer_conf: input_dim is 384, not 512",
        f"which has other tokens; set it to {base}",
    ):
        assert error.count(text) == 2


def test_files_that_fit_pass(whisper, config):
    base = whisper("base", 512, MULTILINGUAL)
    path = config("train_taste.yaml", base, width=512)

    assert main(["--whisper", base, "--config", str(path)]) == 0


@pytest.mark.parametrize(
    ("table", "vocab", "fits"),
    [
        (ENGLISH, ENGLISH, True),
        (LARGE_V3, MULTILINGUAL, True),
        (MULTILINGUAL, LARGE_V3, False),
        (MULTILINGUAL, ENGLISH, False),
    ],
)
def test_a_text_table_must_have_the_tokens(whisper, config, table, vocab, fits):
    path = config("train_text_only.yaml", whisper("table", 64, table))

    assert (find_misfits(path, whisper("own", 384, vocab)) == []) is fits


def test_the_trainings_of_the_paper_fit_large(whisper):
    large = whisper("large", 1280, LARGE_V3)

    for name in ("text_only", "without_vq", "taste"):
        assert find_misfits(CONF / f"released/train_{name}.yaml", large) == []
