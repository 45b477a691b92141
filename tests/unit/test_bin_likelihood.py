"""The command that says how likely a spoken LM finds utterances."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_slm import CODEBOOK_SIZE, NUM_CODEBOOKS, VOCAB_SIZE, make_slm

from espnet_taste.bin import likelihood
from espnet_taste.data.collate import SpokenLMCollate
from espnet_taste.data.preprocessor import SpokenLMPreprocessor
from espnet_taste.pipeline.interchange import write_tokens
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
from espnet_taste.pipeline.tokens import TasteTokens
from espnet_taste.slm.conventions import CONVENTIONS, OF_A_LATENT, ItemLikelihood
from espnet_taste.slm.delay import PAD, collate, delay_words
from espnet_taste.slm.likelihood import log_likelihoods
from espnet_taste.types import IGNORE

TEXTS = {"a": "one two three", "b": "four", "c": "five six", "d": "seven eight nine"}


def letters(text):
    return [2 + ord(letter) % (VOCAB_SIZE - 2) for letter in text.strip()]


def make_tokens(text, models=None, codes=True):
    rng = np.random.default_rng(len(text))
    count = len(text.split())
    ends = np.cumsum(np.full(count, 0.5))
    return TasteTokens(
        words=tuple(text.split()),
        speaker=np.ones(3, np.float32),
        asr_tokens=np.arange(count),
        asr_words=np.arange(count),
        codes=rng.integers(0, CODEBOOK_SIZE, (count, NUM_CODEBOOKS)) if codes else None,
        embeds=None if codes else np.ones((count, 4), np.float32),
        times=np.stack([ends - 0.5, ends], axis=1).astype(np.float32),
        models=models or {},
    )


class Model(SpokenLMInference):
    """A tiny spoken LM that counts what it scores and dies when told to."""

    def __init__(self, head="linear"):
        self.device = torch.device("cpu")
        self.slm = make_slm(head=head)
        self.model = SimpleNamespace(autocast=lambda device: nullcontext())
        self.preprocess = SpokenLMPreprocessor(letters)
        self.collate = SpokenLMCollate()
        self.seen, self.dies_after = [], None

    def log_likelihoods(self, rows, before=None, after=None):
        if self.dies_after is not None and len(self.seen) >= self.dies_after:
            raise KeyboardInterrupt
        self.seen += [row.text for row in rows]
        return super().log_likelihoods(rows, before, after)


@pytest.fixture
def folder(tmp_path):
    write_tokens(
        tmp_path / "tokens.jsonl", {k: make_tokens(t) for k, t in TEXTS.items()}
    )
    return tmp_path


@pytest.fixture
def model(folder, monkeypatch):
    model = Model()

    def check_codes(codes, where):
        if codes.size and codes.max() >= CODEBOOK_SIZE:
            raise ValueError(f"{where}: code {codes.max()}")

    tokenizer = SimpleNamespace(
        models={"tokenizer": "mine"},
        check_codes=check_codes,
        model=SimpleNamespace(quantizer=model.slm.codebooks),
    )
    lm = TasteSpokenLM(model, tokenizer)
    monkeypatch.setattr(TasteSpokenLM, "from_pretrained", lambda *_, **options: lm)
    return model


def run(folder, *options):
    return likelihood.main(
        ["--model", "m", "--tokens", str(folder / "tokens.jsonl"), "--output_dir"]
        + [str(folder / "out"), "--transcripts", "given", *options]
    )


def rows_of(folder):
    lines = (folder / "out" / "likelihoods.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def test_every_item_has_its_likelihoods_and_all_scores(folder, model):
    assert run(folder, "--batch_size", "3") == 0

    rows = rows_of(folder)
    assert list(rows) == list(TEXTS) and model.seen == list(TEXTS.values())
    for key, row in rows.items():
        item = ItemLikelihood(
            *(np.array(row[name]) for name in ("tokens", "token_words", "codes"))
        )
        expected = {name: score(item) for name, score in CONVENTIONS.items()}
        assert row["scores"] == pytest.approx(expected, abs=1e-4)
        assert row["num_words"] == len(TEXTS[key].split())
        assert row["num_tokens"] == len(TEXTS[key].replace(" ", ""))
        assert row["transcripts"] == "given"
        (alone,) = Model().log_likelihoods([make_tokens(TEXTS[key])])
        np.testing.assert_allclose(row["tokens"], alone["tokens"], atol=1e-5)
        np.testing.assert_allclose(row["codes"], alone["codes"], atol=1e-5)


def test_a_latent_has_the_released_score_too(folder, model):
    model.slm = make_slm(head="latent")
    assert run(folder) == 0

    for row in rows_of(folder).values():
        names = ("tokens", "token_words", "codes", "latent_losses")
        item = ItemLikelihood(*(np.array(row[name]) for name in names))
        expected = {name: s(item) for name, s in (CONVENTIONS | OF_A_LATENT).items()}
        assert row["scores"] == pytest.approx(expected, rel=1e-3)
        assert row["scores"]["released"] < 0


def test_moments_score_what_is_said_after_them(folder, model):
    moments = folder / "moments"
    moments.write_text("a 0.5\nb 0\nc 0.4\nd 0.9\n")
    assert run(folder, "--moments", str(moments), "--window_s", "0.5") == 0

    for key, word in {"a": 1, "b": 0, "c": 1, "d": 2}.items():
        row = rows_of(folder)[key]
        kept = np.array(row["token_words"]) == word
        expected = np.mean(np.array(row["tokens"])[kept]) + np.sum(row["codes"][word])
        assert row["scores"]["localised"] == pytest.approx(expected, abs=1e-4)


def test_written_words_around_speech_are_read_without_codes(model):
    tokens = make_tokens("one two")

    (alone,) = model.log_likelihoods([tokens])
    (none,) = model.log_likelihoods([tokens], [""], [""])
    (behind,) = model.log_likelihoods([tokens], ["so many"])
    (text,) = model.log_likelihoods([tokens], None, ["and more"])

    for name, value in alone.items():
        np.testing.assert_allclose(none[name], value)
        assert behind[name].shape == value.shape
    assert abs(behind["tokens"] - alone["tokens"]).max() > 1e-3
    assert len(text["tokens"]) == len("andmore") and text["codes"].shape == (2, 0)
    assert text["token_words"].tolist() == [0, 0, 0, 1, 1, 1, 1]
    # By hand: the same words in one layout, the written ones with the pad for TASTE.
    words = ["so", "many", "one", "two"]
    ids = [token for word in words for token in letters(word)]
    owner = [number for number, word in enumerate(words) for _ in letters(word)]
    codes = np.concatenate([np.full((2, tokens.codes.shape[1]), 7), tokens.codes])
    batch = collate([delay_words(ids, owner, 1)], [codes])
    taste, label = batch.taste_words, batch.label_words
    is_written = batch.word_codes.new_tensor([[1, 1, 0, 0]]).bool()
    batch = replace(
        batch,
        taste_words=taste.where((taste < 0) | (taste > 1), torch.tensor(PAD)),
        label_words=label.where(label > 1, torch.tensor(IGNORE)),
        word_codes=batch.word_codes.masked_fill(is_written[..., None], IGNORE),
    )
    found = log_likelihoods(model.slm, batch)
    np.testing.assert_allclose(behind["tokens"], found.text[0, 6:12], atol=1e-6)
    np.testing.assert_allclose(behind["codes"], found.codes[0, 2:], atol=1e-6)


def test_texts_around_are_read_from_tables(folder, model, capsys):
    table = folder / "before"
    table.write_text("".join(f"{key} so many\n" for key in TEXTS))
    after = folder / "after"
    after.write_text("".join(f"{key} and more\n" for key in TEXTS))

    assert run(folder, "--text_before", str(table), "--batch_size", "3") == 0
    behind = rows_of(folder)
    for key, text in TEXTS.items():
        (alone,) = Model().log_likelihoods([make_tokens(text)], ["so many"])
        np.testing.assert_allclose(behind[key]["tokens"], alone["tokens"], atol=1e-5)
        assert behind[key]["text_before"] == "so many"
    assert run(folder, "--text_after", str(after)) == 1  # other settings
    shutil.rmtree(folder / "out")
    assert run(folder, "--text_after", str(after)) == 0
    for row in rows_of(folder).values():
        assert row["scores"]["taste"] == pytest.approx(row["scores"]["text_only"])
        assert "speech_only" not in row["scores"]  # they would all be 0, and tie

    table.write_text("a so many\n")
    assert run(folder, "--text_before", str(table)) == 1
    assert "no text of 3, e.g. 'b'" in capsys.readouterr().err


def test_a_batch_too_large_for_the_gpu_is_named(folder, model, monkeypatch, capsys):
    def fail(*_, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Model, "log_likelihoods", fail)
    assert run(folder, "--batch_size", "3") == 1
    assert "cannot hold 3 utterances at once" in capsys.readouterr().err


def test_the_batch_size_is_kept(folder, model, monkeypatch):
    sizes, plain = [], Model.log_likelihoods

    def count(self, rows, *around):
        sizes.append(len(rows))
        return plain(self, rows, *around)

    monkeypatch.setattr(Model, "log_likelihoods", count)
    rows = {f"u{n:02d}": make_tokens("one two") for n in range(20)}
    (folder / "tokens.jsonl").unlink()
    write_tokens(folder / "tokens.jsonl", rows)
    assert run(folder, "--batch_size", "20") == 0
    assert sizes == [20]


def test_a_killed_run_goes_on_and_does_nothing_twice(folder, model):
    model.dies_after = 2
    with pytest.raises(KeyboardInterrupt):
        run(folder, "--batch_size", "2")
    assert not (folder / "out" / "likelihoods.jsonl").exists()
    model.dies_after = None

    assert run(folder, "--batch_size", "2") == 0
    assert model.seen == list(TEXTS.values())
    assert list(rows_of(folder)) == list(TEXTS)


def test_what_cannot_be_scored_is_counted(folder, model, capsys):
    model.slm.llm.config.max_position_embeddings = 12  # "seven eight nine" has 14 + 2
    assert run(folder) == 1
    assert "not_scored" in capsys.readouterr().out
    assert run(folder, "--max_excluded", "0.5") == 0

    assert list(rows_of(folder)) == ["b", "c"]
    excluded = (folder / "out" / "excluded.jsonl").read_text()
    assert "takes 13 positions, the LLM has 12" in excluded
    assert json.loads((folder / "out" / "summary.json").read_text())["kept"] == 2


def test_a_likelihood_that_is_not_finite_is_counted(folder, model):
    with torch.no_grad():
        model.slm.head.linear.bias[0] = float("nan")
    assert run(folder, "--max_excluded", "1") == 1  # nothing is left
    assert rows_of(folder) == {}
    excluded = (folder / "out" / "excluded.jsonl").read_text()
    assert excluded.count("not a finite number") == 4


def test_codes_of_another_tokenizer_stop_the_run(folder, model, capsys):
    for name, status in (("mine", 0), ("other", 1)):
        path = folder / "tokens.jsonl"
        path.unlink()
        write_tokens(path, {"x": make_tokens("one two", {"tokenizer": name})})
        assert run(folder, "--output_dir", str(folder / f"out{status}")) == status
    assert "its codes are of tokenizer other" in capsys.readouterr().err


def test_rows_of_another_tokenizer_and_codes_out_of_range_are_counted(folder, model):
    """Also where they stand behind good rows; a code too large is no crash."""
    path = folder / "tokens.jsonl"
    path.unlink()
    far = make_tokens("three")
    rows = {
        "a": make_tokens("one two", {"tokenizer": "mine"}),
        "b": make_tokens("four", {"tokenizer": "other"}),
        "c": replace(far, codes=far.codes + CODEBOOK_SIZE),
        "d": make_tokens("five six"),
    }
    write_tokens(path, rows)

    assert run(folder, "--max_excluded", "0.5") == 0

    assert list(rows_of(folder)) == ["a", "d"]
    excluded = (folder / "out" / "excluded.jsonl").read_text()
    assert "its codes are of tokenizer other" in excluded
    assert "'three': code" in excluded


def test_what_has_no_word_in_the_window_keeps_its_other_scores(folder, model):
    moments = folder / "moments"
    moments.write_text("a 0.5\nb 9\nc 0.4\nd 0.9\n")
    assert run(folder, "--moments", str(moments)) == 0

    rows = rows_of(folder)
    assert "localised" not in rows["b"]["scores"] and "taste" in rows["b"]["scores"]
    assert "no word is said" in rows["b"]["not_localised"]
    assert "localised" in rows["a"]["scores"] and "not_localised" not in rows["a"]


@pytest.mark.parametrize("kind", ["moments", "text_before", "text_after"])
def test_the_normalised_score_is_the_gain_by_what_stands_before(folder, model, kind):
    table = {"moments": "0.5", "text_before": "so many", "text_after": "and more"}
    (folder / kind).write_text("".join(f"{key} {table[kind]}\n" for key in "acd"))
    (folder / "keys").write_text("a\nc\nd\n")
    only = ("--key_file", str(folder / "keys"), f"--{kind}", str(folder / kind))
    assert run(folder, *only, "--normalise", "true") == 0

    for key, row in rows_of(folder).items():
        tokens = make_tokens(TEXTS[key])
        nothing = tokens[:0]
        if kind == "moments":
            with_it, alone = row["scores"]["localised"], ([tokens[1:]],)
        elif kind == "text_before":
            with_it, alone = row["scores"]["taste"], ([tokens],)
        else:
            with_it, alone = row["scores"]["taste"], ([nothing], [""], ["and more"])
        (arrays,) = model.log_likelihoods(*alone)
        without = CONVENTIONS["taste"](ItemLikelihood(**arrays))
        expected = pytest.approx(with_it - without, abs=1e-4)
        assert row["scores"]["normalised"] == expected
        assert abs(row["scores"]["normalised"]) > 1e-3


def test_nothing_to_normalise_by_is_refused(folder, model, capsys):
    assert run(folder, "--normalise", "true") == 1
    assert "needs something that stands before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "message"),
    [("a 0.5\n", "no moment of 3, e.g. 'b'"), ("a x\nb 0\nc 0\nd 0\n", "'a' has 'x'")],
)
def test_a_broken_table_of_moments_is_named(folder, model, table, message, capsys):
    (folder / "moments").write_text(table)
    assert run(folder, "--moments", str(folder / "moments")) == 1
    assert message in capsys.readouterr().err


def test_where_nothing_switches_there_is_no_localised_score(folder, model):
    """As SALMon's parts on alignment, beside those on consistency."""
    (folder / "moments").write_text("a 0.1\nb -\nc 0.1\nd -\n")

    assert run(folder, "--moments", str(folder / "moments")) == 0

    rows = rows_of(folder)
    assert [key for key in rows if "localised" in rows[key]["scores"]] == ["a", "c"]
    assert not [key for key in rows if "not_localised" in rows[key]]


def test_other_settings_and_rows_without_codes_are_refused(folder, model, capsys):
    assert run(folder) == 0
    assert run(folder, "--transcripts", "whisper") == 1
    assert "other settings (transcripts given -> whisper)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="'one two' has no codes"):
        model.log_likelihoods([make_tokens("one two", codes=False)])


def test_scores_of_other_tokens_of_the_same_id_are_refused(folder, model, capsys):
    assert run(folder) == 0
    changed = TEXTS | {"c": "five seven"}
    write_tokens(
        folder / "tokens.jsonl", {k: make_tokens(t) for k, t in changed.items()}
    )

    assert run(folder) == 1
    error = capsys.readouterr().err
    assert "has other tokens than when" in error and "1 results, e.g. 'c'" in error


@pytest.mark.parametrize("broken", ["a", "c"])
def test_a_line_that_cannot_be_read_is_counted(folder, model, broken):
    path = folder / "tokens.jsonl"
    rows = list(map(json.loads, path.read_text().splitlines()))
    for row in rows:
        if row["key"] == broken:
            row["codes"] = row["codes"] * 2
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert run(folder, "--max_excluded", "0.3") == 0

    assert list(rows_of(folder)) == [key for key in TEXTS if key != broken]
    (row,) = map(json.loads, (folder / "out/excluded.jsonl").read_text().splitlines())
    assert (row["key"], row["reason"]) == (broken, "not_scored")
