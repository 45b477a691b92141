"""decode, reconstruct_audio: what they write, count, and go on with."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from encode_worker import TEXT, Worker, make_corpus, run_decode, run_encode

from espnet_taste.bin import reconstruct_audio
from espnet_taste.data.kaldi import read_table
from espnet_taste.pipeline.interchange import TokenFile, write_tokens
from espnet_taste.pipeline.taste import TasteTokenizer
from espnet_taste.pipeline.tokens import TasteTokens


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "data")


@pytest.fixture
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(TasteTokenizer, "from_pretrained", worker.open)
    return worker


@pytest.fixture
def tokens(corpus, tmp_path, worker):
    run_encode(corpus, tmp_path / "tokens")
    return tmp_path / "tokens" / "tokens.jsonl"


def test_tokens_are_decoded_to_a_folder(tokens, tmp_path, worker):
    assert run_decode(tokens, tmp_path / "audio") == 0

    wav = read_table(tmp_path / "audio" / "wav.scp")
    assert list(wav) == sorted(TEXT)
    expected = worker.tokenizer.decode(TokenFile(tokens)["c"]).audio
    np.testing.assert_allclose(soundfile.read(wav["c"])[0], expected, atol=1e-4)
    report = (tmp_path / "audio" / "report.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in report] == sorted(TEXT)


def test_a_killed_decode_goes_on_and_does_nothing_twice(tokens, tmp_path, worker):
    run_decode(tokens, tmp_path / "whole")
    worker.decoded.clear()
    worker.dies_after = 3
    with pytest.raises(KeyboardInterrupt):
        run_decode(tokens, tmp_path / "cut")
    assert not (tmp_path / "cut" / "wav.scp").exists()
    worker.dies_after = None

    assert run_decode(tokens, tmp_path / "cut") == 0

    assert sorted(worker.decoded) == sorted(TEXT.values())
    for key in TEXT:
        one, two = (tmp_path / d / "audio" / f"{key}.flac" for d in ("whole", "cut"))
        assert one.read_bytes() == two.read_bytes()
    opened = len(worker.opened)
    assert run_decode(tokens, tmp_path / "cut") == 0
    assert len(worker.opened) == opened


def test_audio_of_other_tokens_of_the_same_id_is_made_anew(tokens, tmp_path, worker):
    """As of a transcript that was mended; the old audio stayed, without a word."""
    run_decode(tokens, tmp_path / "audio")
    worker.decoded.clear()
    lines = tokens.read_text().splitlines(keepends=True)
    row = json.loads(lines[1])
    row["codes"] = [[code ^ 1 for code in codes] for codes in row["codes"]]
    tokens.write_text("".join([lines[0], json.dumps(row) + "\n", *lines[2:]]))

    assert run_decode(tokens, tmp_path / "audio") == 0

    assert worker.decoded == [TEXT["b"]]
    facts = json.loads(
        (tmp_path / "audio" / "report.jsonl").read_text().splitlines()[1]
    )
    assert facts["tokens_sha256"] == TokenFile(tokens).digest("b")


def test_lines_that_cannot_be_decoded_are_counted(tokens, tmp_path, worker):
    lines = [json.loads(line) for line in tokens.read_text().splitlines()]
    lines[1]["codes"] = [[99, 0]]
    tokens.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert run_decode(tokens, tmp_path / "audio") == 0

    (row,) = (tmp_path / "audio" / "excluded.jsonl").read_text().splitlines()
    assert json.loads(row)["key"] == "b" and "expected 0..7" in row
    assert list(read_table(tmp_path / "audio" / "wav.scp")) == ["a", "c", "d", "e"]


def test_tokens_of_another_tokenizer_stop_the_run(tokens, tmp_path, worker, capsys):
    worker.models = {"tokenizer": "you"}

    assert run_decode(tokens, tmp_path / "audio") == 1

    message = capsys.readouterr().err
    assert "tokens.jsonl:1: 'a': cannot decode" in message and "expected you" in message


def test_reconstruction_is_both_in_one(corpus, tokens, tmp_path, worker):
    run_decode(tokens, tmp_path / "audio")
    out = tmp_path / "again"
    options = ["--model", "m", "--data_dir", str(corpus), "--output_dir", str(out)]

    assert reconstruct_audio.main([*options, "--batch_s", "1.3"]) == 0

    for key, path in read_table(out / "wav.scp").items():
        first = tmp_path / "audio" / "audio" / f"{key}.flac"
        assert soundfile.read(path)[0].tolist() == soundfile.read(first)[0].tolist()
    shutil.rmtree(out / "audio")
    worker.encoded.clear()
    assert reconstruct_audio.main([*options, "--batch_s", "1.3"]) == 0
    assert worker.encoded == [] and (out / "audio" / "a.flac").is_file()
    assert isinstance(TokenFile(out / "tokens" / "tokens.jsonl")["a"], TasteTokens)


def test_a_model_without_vocoder_is_refused_before_any_work(
    tokens, tmp_path, worker, capsys
):
    worker.synthesize = None

    assert run_decode(tokens, tmp_path / "out") == 1

    assert "m has no vocoder" in capsys.readouterr().err and worker.decoded == []


def test_what_cannot_be_decoded_is_not_encoded_first(corpus, tmp_path, worker, capsys):
    released = tmp_path / "released"
    released.mkdir()
    (released / "conversion.json").write_text("{}")
    options = ["--data_dir", str(corpus), "--output_dir", str(tmp_path / "out")]

    assert reconstruct_audio.main([*options, "--model", str(released)]) == 1
    assert "released has no vocoder" in capsys.readouterr().err
    assert reconstruct_audio.main([*options, "--model", "m", "--batch_words", "0"]) == 1
    assert "--batch_words must be at least 1" in capsys.readouterr().err
    assert worker.encoded == [] and not (tmp_path / "out").exists()


def test_audio_that_is_no_number_is_counted(tokens, tmp_path, worker, monkeypatch):
    real = worker.decode

    def decode_badly(rows, **options):
        found = real(rows, **options)
        for row, speech in zip(rows, found, strict=True):
            if row.text == TEXT["c"]:
                speech.audio[0] = np.nan
        return found

    monkeypatch.setattr(worker, "decode", decode_badly)

    assert run_decode(tokens, tmp_path / "out", "--max_excluded", "0.3") == 0

    (row,) = map(json.loads, (tmp_path / "out" / "excluded.jsonl").open())
    assert (row["key"], row["reason"]) == ("c", "not_decoded")
    assert "no number" in row["detail"] and "tokens_sha256" not in row


def test_what_was_left_out_is_decoded_of_other_tokens(tokens, tmp_path, worker):
    lines = {key: TokenFile(tokens)[key] for key in TEXT}
    broken = lines | {"b": replace(lines["b"], codes=lines["b"].codes + 99)}
    write_tokens(tokens, broken)
    assert run_decode(tokens, tmp_path / "out", "--max_excluded", "0.3") == 0
    assert len(read_table(tmp_path / "out" / "wav.scp")) == 4
    write_tokens(tokens, lines)

    assert run_decode(tokens, tmp_path / "out") == 0

    assert list(read_table(tmp_path / "out" / "wav.scp")) == sorted(TEXT)
