"""encode: what it writes, counts, and goes on with."""

import json

import numpy as np
import pytest
import soundfile
import torch
from encode_worker import TEXT, Worker, make_corpus, run_decode, run_encode

from espnet_taste.bin import encode, parallel
from espnet_taste.data.kaldi import write_table
from espnet_taste.pipeline.interchange import TokenFile
from espnet_taste.pipeline.taste import TasteTokenizer


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


def test_every_utterance_is_encoded_in_batches_by_seconds(corpus, tmp_path, worker):
    assert run_encode(corpus, tmp_path / "out") == 0

    tokens = TokenFile(tmp_path / "out" / "tokens.jsonl")
    assert {key: row.text for key, row in tokens.items()} == TEXT
    assert list(tokens) == sorted(TEXT) and worker.batches == [2, 2, 1]
    alone = worker.tokenizer.encode(str(corpus / "c.wav"), TEXT["c"], word_times=False)
    assert np.array_equal(tokens["c"].codes, alone.codes)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["total"] == summary["kept"] == 5
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == [
        "excluded.jsonl",
        "summary.json",
        "tokens.jsonl",
    ]


def test_a_killed_encode_goes_on_and_does_nothing_twice(corpus, tmp_path, worker):
    run_encode(corpus, tmp_path / "whole")
    worker.encoded.clear()
    worker.dies_after = 4
    with pytest.raises(KeyboardInterrupt):
        run_encode(corpus, tmp_path / "cut")
    assert not (tmp_path / "cut" / "tokens.jsonl").exists()
    (part,) = (tmp_path / "cut" / ".parts").glob("*.jsonl")
    with part.open("ab") as stream:
        stream.write(b'{"format": "taste-tok')  # killed while writing
    worker.dies_after = None

    assert run_encode(corpus, tmp_path / "cut") == 0

    assert sorted(worker.encoded) == sorted(TEXT.values())
    for name in ("tokens.jsonl", "summary.json", "excluded.jsonl"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "cut" / name).read_bytes() == whole
    opened = len(worker.opened)
    assert run_encode(corpus, tmp_path / "cut") == 0
    assert len(worker.opened) == opened  # finished: no model is opened


def test_what_cannot_be_used_is_counted_not_raised(corpus, tmp_path, worker, capsys):
    (corpus / "a.wav").write_bytes(b"RIFF")
    soundfile.write(corpus / "b.wav", np.zeros(8000), 16000)
    write_table(corpus / "text", {**TEXT, "c": "", "z": "no audio"})

    assert run_encode(corpus, tmp_path / "out", "--max_excluded", "0.7") == 0

    rows = (tmp_path / "out" / "excluded.jsonl").read_text().splitlines()
    reasons = {row["key"]: row["reason"] for row in map(json.loads, rows)}
    assert reasons == {
        "a": "unreadable",
        "b": "silent",
        "c": "no_transcript",
        "z": "no_audio",
    }
    assert list(TokenFile(tmp_path / "out" / "tokens.jsonl")) == ["d", "e"]
    worker.encoded.clear()
    assert run_encode(corpus, tmp_path / "out", "--max_excluded", "0.5") == 1
    assert worker.encoded == []
    assert "4 of 6 utterances are excluded" in capsys.readouterr().err


def test_one_that_fails_spoils_no_other(corpus, tmp_path, worker, monkeypatch):
    encode_all = worker.encode

    def refuse(audio, text, **options):
        if "three" in text:
            raise ValueError("no word was heard")
        return encode_all(audio, text, **options)

    monkeypatch.setattr(worker, "encode", refuse)

    assert run_encode(corpus, tmp_path / "out") == 0

    (row,) = (tmp_path / "out" / "excluded.jsonl").read_text().splitlines()
    assert json.loads(row)["key"] == "b" and "no word was heard" in row
    assert list(TokenFile(tmp_path / "out" / "tokens.jsonl")) == ["a", "c", "d", "e"]


def test_a_table_without_text_is_transcribed(corpus, tmp_path, worker, monkeypatch):
    seen = []

    def write(audio, text, **options):
        seen.extend(text)
        return worker.tokenizer.encode(audio, ["heard"] * len(audio), **options)

    monkeypatch.setattr(worker, "encode", write)
    out = tmp_path / "out"
    options = ["--model", "m", "--wav_scp", str(corpus / "wav.scp"), "--output_dir"]

    assert encode.main([*options, str(out), "--word_times", "false"]) == 0

    assert seen == [None] * 5
    assert TokenFile(out / "tokens.jsonl")["a"].text == "heard"


def test_a_recogniser_of_espnet_may_write(
    corpus, tmp_path, worker, monkeypatch, capsys, caplog
):
    asked = []

    def load(*options, **more):
        asked.append((*options, *more.items()))
        return "recogniser"

    monkeypatch.setattr("espnet_taste.data.espnet_asr.load_espnet_asr", load)
    out, needs = tmp_path / "out", ("--max_excluded", "1")
    run_encode(corpus, out, "--asr_tag", "some/tag", *needs)

    assert asked == [("some/tag", None, None, "cpu")]
    assert worker.opened[0][2]["transcriber"] == "recogniser"
    assert "5 utterances have a transcript, which is used" in caplog.text
    run_encode(corpus, tmp_path / "b", "--asr_tag", "t", "--asr_beam", "3", *needs)
    assert asked[1:] == [("t", None, None, "cpu", ("beam_size", 3))]
    assert run_encode(corpus, out, "--asr_tag", "other", *needs) == 1
    assert "other settings (asr_tag some/tag -> other)" in capsys.readouterr().err


def test_what_a_model_leaves_open_is_passed_on_and_remembered(
    corpus, tmp_path, worker, capsys
):
    open_options = {"whisper": "w", "language": "de", "task": "translate"}
    open_options |= {"window": "trimmed", "speaker_model": "s.onnx"}
    options = [f"--{name}={value}" for name, value in open_options.items()]
    out = tmp_path / "out"

    assert run_encode(corpus, out, *options) == 0
    assert worker.opened[0][2].items() >= open_options.items()
    assert run_encode(corpus, out, *options[:-1]) == 1
    assert "(speaker_model s.onnx -> None)" in capsys.readouterr().err
    assert run_encode(corpus, tmp_path / "plain") == 0
    assert not worker.opened[-1][2].keys() & open_options.keys()

    tokens = out / "tokens.jsonl"
    assert run_decode(tokens, tmp_path / "audio", "--whisper", "w") == 0
    assert worker.opened[-1][2]["whisper"] == "w"


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_batch_too_large_for_the_gpu_is_named(
    command, tokens, corpus, tmp_path, worker, monkeypatch, capsys
):
    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(worker, command, fail)
    if command == "encode":
        assert run_encode(corpus, tmp_path / "new") == 1
        words = "cannot hold 2 utterances at once, from 'a' on; lower --batch_s,"
    else:
        assert run_decode(tokens, tmp_path / "new") == 1
        words = "cannot hold 2 utterances at once, from 'a' on; lower --batch_words"
    assert words in capsys.readouterr().err


def test_unknown_keys_other_settings_and_other_models_are_refused(
    corpus, tmp_path, worker, capsys
):
    write_table(tmp_path / "some", {"a": "", "q": ""})
    out = tmp_path / "out"
    assert run_encode(corpus, out, "--key_file", str(tmp_path / "some")) == 1
    assert "1 ids are not in the data folder, for instance 'q'" in (
        capsys.readouterr().err
    )
    write_table(tmp_path / "some", {"a": ""})
    assert run_encode(corpus, out, "--key_file", str(tmp_path / "some")) == 0
    assert run_encode(corpus, out, "--dtype", "bfloat16") == 1
    assert "other settings (dtype float32 -> bfloat16)" in capsys.readouterr().err
    worker.models = {"tokenizer": "trained again"}
    assert run_encode(corpus, out) == 1
    assert "codes are of tokenizer me, expected trained again" in (
        capsys.readouterr().err
    )


def test_another_subset_adds_to_the_folder(corpus, tmp_path, worker):
    for key in "ab":
        write_table(tmp_path / "some", {key: ""})
        run_encode(corpus, tmp_path / "out", "--key_file", str(tmp_path / "some"))

    assert list(TokenFile(tmp_path / "out" / "tokens.jsonl")) == ["a", "b"]


def test_parts_of_parallel_jobs_are_joined(corpus, tmp_path, worker, monkeypatch):
    """The jobs run here, one after the other; processes: test_parallel."""
    jobs = []

    def in_turn(work, args, keys):
        for job, part in enumerate(parallel.split_evenly(keys, args.nj)):
            jobs.append(part)
            work(args, part, job)

    run_encode(corpus, tmp_path / "one")
    monkeypatch.setattr(encode, "in_processes", in_turn)

    run_encode(corpus, tmp_path / "two", "--nj", "2", "--ngpu", "3")

    assert jobs == [["a", "b"], ["c", "d", "e"]]
    assert [device for _, device, _ in worker.opened] == ["cpu", "cuda:0", "cuda:1"]
    one, two = (TokenFile(tmp_path / d / "tokens.jsonl") for d in ("one", "two"))
    assert dict(one) == dict(two)


def test_another_text_of_the_same_id_is_refused(corpus, tmp_path, worker, capsys):
    assert run_encode(corpus, tmp_path / "out") == 0
    write_table(corpus / "text", TEXT | {"c": "four  five six"})
    assert run_encode(corpus, tmp_path / "out") == 0  # blanks do not count
    write_table(corpus / "text", TEXT | {"c": "four nine six"})

    assert run_encode(corpus, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "1 utterances have another text" in error and "'c'" in error


def test_audio_that_could_not_be_read_is_tried_again(corpus, tmp_path, worker):
    hidden = (corpus / "b.wav").rename(tmp_path / "b.wav")
    assert run_encode(corpus, tmp_path / "out", "--max_excluded", "0.3") == 0
    hidden.rename(corpus / "b.wav")
    worker.encoded.clear()

    assert run_encode(corpus, tmp_path / "out") == 0

    assert worker.encoded == [TEXT["b"]]
    assert list(TokenFile(tmp_path / "out" / "tokens.jsonl")) == sorted(TEXT)


def test_other_audio_of_the_same_id_is_refused(corpus, tmp_path, worker, capsys):
    """As prompts that were cut at another second into the same folder."""
    write_table(corpus / "segments", {key: f"{key} 0 0.25" for key in TEXT})
    assert run_encode(corpus, tmp_path / "out") == 0
    assert run_encode(corpus, tmp_path / "out") == 0
    write_table(corpus / "segments", {key: f"{key} 0 0.125" for key in TEXT})
    worker.encoded.clear()

    for _ in range(2):
        assert run_encode(corpus, tmp_path / "out") == 1
        told = "5 utterances are other audio than when they were encoded"
        assert told in capsys.readouterr().err
    assert worker.encoded == []


def test_a_text_that_is_gone_is_not_heard_beside_texts_that_were_given(
    corpus, tmp_path, worker, capsys
):
    assert run_encode(corpus, tmp_path / "out") == 0
    (corpus / "text").unlink()

    assert run_encode(corpus, tmp_path / "out") == 1
    assert "or have no text any more, e.g. 'a'" in capsys.readouterr().err


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("text", ["", "..."])
def test_a_transcript_that_was_mended_is_encoded(
    corpus, tmp_path, worker, text, is_old
):
    out = tmp_path / "out"
    write_table(corpus / "text", TEXT | {"c": text})
    assert run_encode(corpus, out, "--max_excluded", "0.3") == 0
    if is_old:
        (out / ".made_of.jsonl").unlink()
    write_table(corpus / "text", TEXT)
    worker.encoded.clear()

    result = run_encode(corpus, out)

    if is_old and text:  # it does not tell of which text it was
        assert worker.encoded == []
        return
    assert result == 0 and worker.encoded == [TEXT["c"]]
    assert list(TokenFile(out / "tokens.jsonl")) == sorted(TEXT)
    assert (out / "excluded.jsonl").read_text() == ""
