"""Other forms of tokens: read as their own readers do."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from espnet_taste.bin import export_tokens
from espnet_taste.data.kaldi import read_scp_arrays, read_table
from espnet_taste.pipeline.interchange import TokenFile, from_row, write_tokens
from espnet_taste.pipeline.tokens import TasteTokens


def make(num, seed, **changes):
    draw = np.random.default_rng(seed)
    parts = dict(
        words=tuple(f"w{i}" for i in range(num)),
        speaker=np.ones(3, np.float32),
        asr_tokens=np.arange(num),
        asr_words=np.arange(num),
        codes=draw.integers(0, 8, (num, 2)),
        times=draw.random((num, 2)).astype(np.float32),
        models={"tokenizer": "me"},
    )
    return TasteTokens(**parts | changes)


@pytest.fixture
def path(tmp_path):
    rows = {"u1": make(3, 1), "u2": make(1, 2, times=None)}
    write_tokens(tmp_path / "tokens.jsonl", rows)
    return tmp_path / "tokens.jsonl"


def run(path, to, *options):
    out = path.parent / to
    arguments = ["--tokens", str(path), "--to", to, "--output_dir", str(out)]
    return export_tokens.main([*arguments, *options]), out


def test_arks(path):
    status, out = run(path, "kaldi")

    tokens = TokenFile(path)
    codes = read_scp_arrays(out / "codes.scp")
    assert status == 0 and list(codes) == ["u1", "u2"]
    assert np.array_equal(codes["u1"], tokens["u1"].codes)
    shapes = {key: ",".join(map(str, row.shape)) for key, row in codes.items()}
    assert read_table(out / "codes_shape") == shapes
    times = read_scp_arrays(out / "times.scp")
    assert list(times) == ["u1"]
    assert np.array_equal(times["u1"], tokens["u1"].times)
    assert read_table(out / "text")["u1"] == "w0 w1 w2"
    assert json.loads((out / "models.json").read_text()) == {"tokenizer": "me"}
    assert run(path, "kaldi")[0] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": {"tokenizer": "other"}}, "other models made"),
        ({"codes": np.ones((3, 2), int)}, "'u1': an earlier export to .* other codes"),
        ({"times": None}, "'u1': .* other times of it"),
    ],
)
def test_arks_of_other_tokens_are_not_taken_for_these(path, capsys, changes, words):
    assert run(path, "kaldi")[0] == 0
    write_tokens(path, {"u1": make(3, 1, **changes)})

    assert run(path, "kaldi")[0] == 1
    assert re.search(words, capsys.readouterr().err)


def test_arks_of_a_subset_list_no_others(path, caplog):
    assert run(path, "kaldi")[0] == 0
    write_tokens(path, {"u1": make(3, 1)})

    status, out = run(path, "kaldi")

    tables = ("text", "codes.scp", "times.scp", "speaker.scp")
    assert status == 0
    assert all(list(read_table(out / name)) == ["u1"] for name in tables)
    assert "-1 of" not in caplog.text


def test_speechlm_reader_finds_text_and_codes(path):
    """Opened by ESPnet's own dataset of the template."""
    from espnet2.train.dataset import ESPnetMultiTaskDataset

    status, out = run(path, "speechlm", "--codebook_size", "8")
    assert status == 0

    dataset = ESPnetMultiTaskDataset(
        [(str(out / "data.json"), "_", "dataset_json")],
        preprocess=lambda uid, data: {
            "codes": data["wav.scp"],
            "text_length": np.array([len(data["text"].split())]),
        },
    )

    uid, data = dataset["tts_u1"]
    codes = TokenFile(path)["u1"].codes
    assert uid == "tts_u1" and {"tts_u1", "tts_u2"} <= set(dataset.example_list)
    assert data["codes"].dtype.kind == "i" and data["text_length"] == [3]
    assert np.array_equal(data["codes"].reshape(-1, 2) - [0, 8], codes)
    vocabulary = (out / "token_lists/codec_token_list").read_text().split()
    assert len(vocabulary) == 16 and vocabulary[9] == "<codec_layer1_code1>"


def test_what_speechlm_cannot_take_is_named(path, capsys):
    assert run(path, "speechlm")[0] == 1
    assert "needs --codebook_size" in capsys.readouterr().err
    assert run(path, "speechlm", "--codebook_size", "2")[0] == 1
    assert "--codebook_size is 2" in capsys.readouterr().err
    assert run(path, "speechlm", "--codebook_size", "8", "--task", "u")[0] == 1
    assert "'u1': ESPnet's reader strips" in capsys.readouterr().err


def test_a_dataset_needs_the_names_of_the_models(path, capsys):
    """It ended in a traceback of pyarrow."""
    pytest.importorskip("datasets")
    nameless = {"u1": replace(TokenFile(path)["u1"], models={})}
    path.unlink()
    write_tokens(path, nameless)

    assert run(path, "hf")[0] == 1
    assert "'u1' does not say by which models it was made" in capsys.readouterr().err


def test_hugging_face_reads_folder_and_file(path):
    datasets = pytest.importorskip("datasets")
    status, out = run(path, "hf")
    assert status == 0
    cache = str(path.parent / "cache")

    rows = datasets.load_dataset(str(out), split="train", cache_dir=cache)
    lines = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=cache
    )

    tokens = TokenFile(path)
    for row in [*rows, *lines]:
        key, read = from_row(row, "row")
        assert read == replace(tokens[key], embeds=None)


def test_two_tokenizers_and_unknown_keys_are_named(path, tmp_path, capsys):
    (tmp_path / "some").write_text("u9\n")
    assert run(path, "kaldi", "--key_file", str(tmp_path / "some"))[0] == 1
    assert "'u9'" in capsys.readouterr().err
    rows = {"u1": make(1, 1), "u2": make(1, 2, models={"tokenizer": "you"})}
    write_tokens(path, rows)
    assert run(path, "kaldi")[0] == 1
    assert "tokens.jsonl:2: 'u2': cannot export" in capsys.readouterr().err
