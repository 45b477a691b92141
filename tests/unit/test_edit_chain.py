"""From recordings to edited audio by the commands alone, on a model in files."""

import importlib.util
import json

import pytest
import soundfile
from tiny_experiment import write_experiment, write_whisper
from tiny_taste import noise

from espnet_taste.bin import decode, edit, encode
from espnet_taste.data.kaldi import read_table, write_table
from espnet_taste.pipeline.interchange import TokenFile

TEXT = "so it goes on"


@pytest.fixture
def corpus(tmp_path):
    """Two recordings of one text."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, key in enumerate(("calm", "keen")):
        soundfile.write(folder / f"{key}.wav", noise(12000, number), 16000)
    write_table(folder / "wav.scp", {key: f"{key}.wav" for key in ("calm", "keen")})
    write_table(folder / "text", {"calm": TEXT, "keen": TEXT})
    return folder


def test_encode_edit_decode(corpus, tmp_path):
    whisper = write_whisper(tmp_path / "whisper", window_s=30)
    model = ["--model", str(write_experiment(tmp_path / "exp", whisper))]
    tokens, edited, audio = (tmp_path / name for name in ("tokens", "edited", "audio"))
    orders = [
        {
            "key": "a",
            "edit": "swap",
            "utterance": "calm",
            "donor": "keen",
            "words": [2],
        },
        {"key": "b", "edit": "replace", "utterance": "calm", "word": 2, "text": "went"},
    ]
    edits = tmp_path / "list.jsonl"
    edits.write_text("".join(json.dumps(order) + "\n" for order in orders))
    source = ["--data_dir", str(corpus), "--output_dir", str(tokens)]
    assert encode.main([*model, *source]) == 0
    source = ["--tokens", str(tokens / "tokens.jsonl"), "--edit_list", str(edits)]
    if importlib.util.find_spec("pyworld") is None:
        source.append("--no_pitch")
    assert edit.main([*model, *source, "--output_dir", str(edited)]) == 0
    source = ["--tokens", str(edited / "tokens.jsonl"), "--output_dir", str(audio)]
    assert decode.main([*model, *source]) == 0

    before, after = (TokenFile(f / "tokens.jsonl") for f in (tokens, edited))
    assert {key: row.text for key, row in after.items()} == {
        "a": TEXT,
        "b": "so it went on",
    }
    assert after["a"].codes[2].tolist() == before["keen"].codes[2].tolist()
    assert after["a"].codes[[0, 1, 3]].tolist() == (
        before["calm"].codes[[0, 1, 3]].tolist()
    )
    for line in (edited / "edits.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["changed"] == [2] and row["caveats"]
        assert [word["is_edited"] for word in row["words"]] == [
            False,
            False,
            True,
            False,
        ]
        assert all(word["before"]["duration_s"] > 0 for word in row["words"])
        assert all(word["after"]["duration_s"] > 0 for word in row["words"])
    wav = read_table(audio / "wav.scp")
    assert list(wav) == ["a", "b"]
    assert all(soundfile.info(path).frames > 0 for path in wav.values())
