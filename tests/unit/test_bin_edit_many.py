"""edit over a list: what it writes, counts, refuses, and goes on with."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_taste import noise, tiny_tokenizer

from espnet_taste.bin import edit, edit_many, parallel
from espnet_taste.data.kaldi import read_table, write_table
from espnet_taste.pipeline.interchange import TokenFile, write_tokens
from espnet_taste.pipeline.taste import TasteTokenizer

TEXT = "a b c d"
ORDERS = {
    "e1": {"edit": "swap", "utterance": "one", "donor": "two", "words": [1, 2]},
    "e2": {"edit": "repeat", "utterance": "one", "word": 0, "times": 3},
    "e3": {"edit": "replace", "utterance": "two", "word": 3, "text": "new"},
    "e4": {"edit": "transplant", "utterance": "two", "word": 0, "donor": "one",
           "donor_word": 2},
    "e5": {"edit": "interpolate", "utterance": "one", "donor": "two", "share": 0.5},
}  # fmt: skip
TEXTS = {"e1": TEXT, "e2": f"a a {TEXT}", "e3": "a b c new", "e4": TEXT, "e5": TEXT}


class Worker:
    """Stands for the model: counts what it does and dies when told to."""

    def __init__(self):
        self.tokenizer = tiny_tokenizer()
        self.tokenizer.encoder.hear_words = self.hear_words
        self.device, self.encoder = self.tokenizer.device, self.tokenizer.encoder
        self.model, self.embed = self.tokenizer.model, self.tokenizer.embed
        self.models, self.synthesize = self.tokenizer.models, True
        self.decoded, self.opened, self.dies_after = [], [], None

    def hear_words(self, wave, words):
        edges = np.linspace(0, len(wave) / 16000, len(words) + 1)
        return np.stack([edges[:-1], edges[1:]], axis=1), " ".join(words)

    def open(self, source, *, device="cpu", **options):
        self.opened.append((source, device, options))
        return self

    def decode(self, tokens, **options):
        if self.dies_after is not None and len(self.decoded) >= self.dies_after:
            raise KeyboardInterrupt
        self.decoded += [row.text for row in tokens]
        return self.tokenizer.decode(tokens, **options)


@pytest.fixture
def worker(monkeypatch):
    worker = Worker()
    monkeypatch.setattr(TasteTokenizer, "from_pretrained", worker.open)
    return worker


@pytest.fixture
def folder(tmp_path, worker):
    rows = worker.tokenizer.encode(
        [noise(16000, 1), noise(16000, 2)], [TEXT] * 2, word_times=False
    )
    write_tokens(tmp_path / "tokens.jsonl", dict(zip(("one", "two"), rows)))
    write_list(tmp_path, ORDERS)
    return tmp_path


def write_list(folder, orders):
    lines = [json.dumps({"key": key, **order}) for key, order in orders.items()]
    (folder / "list.jsonl").write_text("".join(f"{line}\n" for line in lines))


def run(folder, *options, out="out"):
    paths = ["--tokens", str(folder / "tokens.jsonl")]
    paths += ["--edit_list", str(folder / "list.jsonl")]
    paths += ["--output_dir", str(folder / out), "--no_pitch", "--batch_words", "16"]
    return edit.main(["--model", "m", *paths, *options])


def rows_of(path):
    rows = map(json.loads, path.read_text().splitlines())
    return {row["key"]: row for row in rows}


def test_tokens_and_a_table_of_every_edit(folder, worker):
    assert run(folder) == 0

    out = folder / "out"
    names = {path.name for path in out.glob("[!.]*")}
    assert names == {"tokens.jsonl", "edits.jsonl", "excluded.jsonl", "summary.json"}
    source, tokens = (TokenFile(f / "tokens.jsonl") for f in (folder, out))
    assert {key: row.text for key, row in tokens.items()} == TEXTS
    assert np.array_equal(tokens["e1"].codes[1:3], source["two"].codes[1:3])
    assert np.array_equal(tokens["e1"].codes[3], source["one"].codes[3])
    table = rows_of(out / "edits.jsonl")
    assert list(table) == list(ORDERS)
    for key, row in table.items():
        assert row["asked"] == ORDERS[key] and row["text"] == TEXTS[key]
        assert [word["place"] for word in row["words"] if word["is_edited"]] == (
            row["changed"]
        )
        assert row["caveats"] and row["notes"] == ["Pitch was not measured."]
    word = table["e2"]["words"][4]
    assert word["before"]["word"] == "c" and word["after"]["duration_s"] > 0
    assert word["duration_change_s"] is not None
    summary = json.loads((out / "summary.json").read_text())
    assert summary["total"] == summary["kept"] == 5


def test_an_utterance_of_several_edits_is_decoded_once_a_batch(folder, worker):
    assert run(folder, "--batch_words", "1000") == 0
    assert len(worker.decoded) == len(ORDERS) + 2


def test_audio_of_before_and_after_where_it_is_wanted(folder, worker):
    assert run(folder, "--write_audio", "true") == 0

    source, tokens = (TokenFile(f / "tokens.jsonl") for f in (folder, folder / "out"))
    after = read_table(folder / "out" / "wav.scp")
    before = read_table(folder / "out" / "before" / "wav.scp")
    assert list(after) == list(before) == list(ORDERS)
    for key, row in ORDERS.items():
        for path, wanted in (
            (after[key], tokens[key]),
            (before[key], source[row["utterance"]]),
        ):
            expected = worker.tokenizer.decode(wanted).audio
            np.testing.assert_allclose(soundfile.read(path)[0], expected, atol=1e-4)


def test_any_id_may_have_audio(folder, worker):
    write_list(folder, {"a/b": ORDERS["e1"], "a:b": ORDERS["e1"]})

    assert run(folder, "--write_audio", "true") == 0

    for out in (folder / "out", folder / "out" / "before"):
        audio = read_table(out / "wav.scp")
        assert list(audio) == ["a/b", "a:b"]
        assert all(Path(path).is_file() for path in audio.values())


def test_edits_can_be_made_without_a_vocoder(folder, worker, capsys):
    worker.synthesize = None
    assert run(folder) == 1
    assert "m has no vocoder to hear edits with; use --measure false" in (
        capsys.readouterr().err
    )

    assert run(folder, "--measure", "false", out="quick") == 0

    assert worker.decoded == []
    row = rows_of(folder / "quick" / "edits.jsonl")["e1"]
    assert row["words"] is None and row["caveats"]
    assert row["notes"] == ["Nothing was measured (--measure false)."]


def test_a_killed_run_goes_on_and_does_nothing_twice(folder, worker):
    audio = ("--write_audio", "true")
    assert run(folder, *audio, out="whole") == 0
    worker.decoded.clear()
    worker.dies_after = 4
    with pytest.raises(KeyboardInterrupt):
        run(folder, *audio, out="cut")
    assert not (folder / "cut" / "tokens.jsonl").exists()
    (part,) = (folder / "cut" / ".parts").glob("*.jsonl")
    assert list(TokenFile(part)) == ["e1", "e2"]
    with part.open("ab") as stream:
        stream.write(b'{"format": "taste-tok')  # killed while writing
    worker.dies_after = None
    worker.decoded.clear()

    assert run(folder, *audio, out="cut") == 0

    assert worker.decoded == [TEXT, TEXTS["e3"], TEXTS["e4"], TEXT, TEXTS["e5"]]
    for name in ("tokens.jsonl", "edits.jsonl", "excluded.jsonl", "summary.json"):
        assert (folder / "cut" / name).read_bytes() == (
            folder / "whole" / name
        ).read_bytes()
    assert list(read_table(folder / "cut" / "wav.scp")) == list(ORDERS)
    opened = len(worker.opened)
    assert run(folder, *audio, out="cut") == 0
    assert len(worker.opened) == opened  # finished: no model is opened


BAD = {
    "x1": ({"edit": "swop"}, "bad_edit", "list.jsonl:6: no edit 'swop'"),
    "x2": ({"edit": "repeat", "utterance": "one", "word": 1}, "bad_edit",
           "list.jsonl:7: repeat needs 'times', a whole number"),
    "x3": ({**ORDERS["e1"], "donor": "no"}, "no_utterance",
           "list.jsonl:8: no utterance 'no' in"),
    "x4": ({**ORDERS["e1"], "words": [4]}, "not_edited",
           "list.jsonl:9: no word 4 in 'a b c d', whose words are 0..3"),
    "x5": ({"edit": "retime", "utterance": "one", "span": [2, 9], "factor": 2},
           "not_edited", "list.jsonl:10: the span [2, 9] must be"),
    "x6": ({**ORDERS["e1"], "donor": "foreign"}, "not_edited",
           "expected me; encode the audio again"),
}  # fmt: skip


def test_lines_that_cannot_be_done_are_counted_and_tried_again(folder, worker, capsys):
    lines = (folder / "tokens.jsonl").read_text().splitlines()
    foreign = json.loads(lines[1])
    foreign |= {"key": "foreign", "models": {"tokenizer": "you"}}
    (folder / "tokens.jsonl").write_text("\n".join([*lines, json.dumps(foreign), ""]))
    write_list(folder, {**ORDERS, **{key: bad[0] for key, bad in BAD.items()}})

    assert run(folder) == 1

    assert "6 of 11 utterances are excluded" in capsys.readouterr().err
    rows = rows_of(folder / "out" / "excluded.jsonl")
    assert list(rows) == list(BAD)
    for key, (_, reason, message) in BAD.items():
        assert rows[key]["reason"] == reason and message in rows[key]["detail"]
    assert list(TokenFile(folder / "out" / "tokens.jsonl")) == list(ORDERS)
    assert run(folder, "--max_excluded", "0.6") == 0

    worker.decoded.clear()
    mended = {key: ORDERS["e2"] for key in BAD}
    write_list(folder, {**ORDERS, **mended})
    assert run(folder) == 0
    assert worker.decoded.count(TEXTS["e2"]) == len(BAD)
    assert (folder / "out" / "excluded.jsonl").read_text() == ""
    assert list(rows_of(folder / "out" / "edits.jsonl")) == [*ORDERS, *BAD]


def test_one_that_cannot_be_decoded_spoils_no_other(folder, worker, monkeypatch):
    decode_all = worker.decode

    def refuse(tokens, **options):
        if any(row.text == TEXTS["e2"] for row in tokens):
            raise ValueError("too long")
        return decode_all(tokens, **options)

    monkeypatch.setattr(worker, "decode", refuse)

    assert run(folder, "--max_excluded", "0.2") == 0

    (row,) = rows_of(folder / "out" / "excluded.jsonl").values()
    assert (row["key"], row["reason"]) == ("e2", "not_decoded")
    assert row["detail"].endswith("list.jsonl:2: too long")
    assert list(rows_of(folder / "out" / "edits.jsonl")) == ["e1", "e3", "e4", "e5"]


def test_another_edit_under_the_same_id_is_refused(folder, worker, capsys):
    assert run(folder) == 0
    write_list(folder, {**ORDERS, "e2": {**ORDERS["e2"], "times": 4}})

    assert run(folder) == 1

    error = capsys.readouterr().err
    assert "list.jsonl:2: 'e2' is in" in error and '"times": 3' in error
    assert "give the edit another id or choose another --output_dir" in error
    write_list(folder, {"new": ORDERS["e2"]})
    assert run(folder) == 0
    assert list(rows_of(folder / "out" / "edits.jsonl")) == [*ORDERS, "new"]


def test_edits_of_other_tokens_of_the_same_id_are_refused(folder, worker, capsys):
    assert run(folder) == 0
    rows = dict(TokenFile(folder / "tokens.jsonl"))
    swapped = {"one": rows["one"], "two": rows["one"], "three": rows["two"]}
    write_tokens(folder / "tokens.jsonl", swapped)

    assert run(folder) == 1
    reading = [
        k for k, o in ORDERS.items() if "two" in (o["utterance"], o.get("donor"))
    ]
    error = capsys.readouterr().err
    assert "other tokens than when" in error
    assert f"for {len(reading)} results, e.g. '{reading[0]}'" in error

    write_tokens(folder / "tokens.jsonl", rows | {"three": rows["two"]})
    assert run(folder) == 0  # files may grow


def test_other_settings_models_and_folders_are_refused(folder, worker, capsys):
    assert run(folder) == 0
    assert run(folder, "--seed", "3") == 1
    assert "other settings (seed 1986 -> 3)" in capsys.readouterr().err
    write_list(folder, {**ORDERS, "new": ORDERS["e2"]})
    worker.models = {"tokenizer": "trained again"}
    assert run(folder) == 1
    assert "expected trained again" in capsys.readouterr().err
    assert run(folder, out=".") == 1
    assert "tokens.jsonl would be replaced" in capsys.readouterr().err
    (folder / "other").mkdir()
    shutil.copy(folder / "tokens.jsonl", folder / "other")
    assert run(folder, out="other") == 1
    assert "holds tokens that no edit made" in capsys.readouterr().err


def test_edited_tokens_can_be_edited_again(folder, worker):
    assert run(folder) == 0
    again = {"f": {"edit": "repeat", "utterance": "e3", "word": 3, "times": 2}}
    (folder / "list.jsonl").unlink()
    write_list(folder, again)
    tokens = ["--tokens", str(folder / "out" / "tokens.jsonl")]

    assert run(folder, *tokens, out="again") == 0

    assert TokenFile(folder / "again" / "tokens.jsonl")["f"].text == "a b c new new"


def test_a_subset_of_the_edits(folder, worker):
    write_table(folder / "some", {"e3": "", "e1": ""})
    assert run(folder, "--key_file", str(folder / "some")) == 0
    assert list(rows_of(folder / "out" / "edits.jsonl")) == ["e1", "e3"]


def test_a_subset_leaves_what_is_told_of_others(folder, worker):
    """Edits of an earlier run that were not made were no longer counted."""
    write_list(folder, {"e1": ORDERS["e1"], "x4": BAD["x4"][0], "x6": BAD["x6"][0]})
    assert run(folder, "--max_excluded", "1") == 0
    write_table(folder / "some", {"e1": "", "x6": ""})

    assert run(folder, "--key_file", str(folder / "some"), "--max_excluded", "1") == 0

    assert set(rows_of(folder / "out" / "excluded.jsonl")) == {"x4", "x6"}


def test_parts_of_parallel_jobs_are_joined(folder, worker, monkeypatch):
    """The jobs run here, one after the other; processes: test_parallel."""
    jobs = []

    def in_turn(work, args, keys):
        for job, part in enumerate(parallel.split_evenly(keys, args.nj)):
            jobs.append(part)
            work(args, part, job)

    assert run(folder, out="one") == 0
    monkeypatch.setattr(edit_many, "in_processes", in_turn)

    assert run(folder, "--nj", "2", "--ngpu", "3", out="two") == 0

    assert jobs == [["e1", "e2"], ["e3", "e4", "e5"]]
    assert [device for _, device, _ in worker.opened] == ["cpu", "cuda:0", "cuda:1"]
    for name in ("tokens.jsonl", "edits.jsonl"):
        one, two = (folder / out / name for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_list_needs_tokens_and_no_other_edit(folder, worker, capsys):
    options = ["--model", "m", "--output_dir", str(folder / "out"), "--no_pitch"]
    edits = ["--edit_list", str(folder / "list.jsonl")]
    assert edit.main([*options, *edits]) == 1
    assert "--edit_list needs --tokens" in capsys.readouterr().err
    for wrong in ([], [*edits, "repeat", "one", "--word", "0", "--times", "2"]):
        assert edit.main([*options, *wrong]) == 1
        assert "give either --edit_list or one edit by name" in capsys.readouterr().err
    assert run(folder, "--write_audio", "true", "--edit_list", "none") == 1
    assert "no list of edits at none" in capsys.readouterr().err


@pytest.mark.parametrize("other", [{}, {"renamed": ORDERS["e2"]}])
def test_a_line_that_is_gone_is_missed_no_more(folder, worker, other):
    bad = {"x": {"edit": "repeat", "utterance": "one", "word": 99, "times": 3}}
    write_list(folder, {**ORDERS, **bad})
    assert run(folder) == 1
    write_list(folder, {**ORDERS, **other})

    assert run(folder) == 0

    assert (folder / "out" / "excluded.jsonl").read_text() == ""


def test_audio_that_is_no_number_spoils_no_other_edit(folder, worker, monkeypatch):
    decode_all = worker.decode

    def decode(tokens, **options):
        rows = decode_all(tokens, **options)
        for row, speech in zip(tokens, rows, strict=True):
            if row.text == TEXTS["e2"]:
                speech.audio[:] = np.nan
        return rows

    monkeypatch.setattr(worker, "decode", decode)
    options = ("--write_audio", "true", "--measure", "false", "--max_excluded", "0.2")

    assert run(folder, *options) == 0

    (row,) = rows_of(folder / "out" / "excluded.jsonl").values()
    assert (row["key"], row["reason"]) == ("e2", "not_decoded")
    assert list(read_table(folder / "out" / "wav.scp")) == ["e1", "e3", "e4", "e5"]
