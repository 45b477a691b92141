"""The command that scores continuations."""

import json

import numpy as np
import pytest
import soundfile

from espnet_taste import packages
from espnet_taste.bin import score_continuations as command
from espnet_taste.eval import asr_judge, mos
from espnet_taste.eval.asr_judge import Transcript
from espnet_taste.slm import perplexity
from espnet_taste.slm.perplexity import TextNats


class FakeLM:
    """Two nats a letter."""

    def __init__(self, llm, device):
        assert llm == "some"

    def score(self, texts):
        return [TextNats(2.0 * len(text), len(text)) for text in texts]


class FakeJudge:
    """Hears "go" once for every 1000 samples."""

    calls, told = 0, None

    def __init__(self, folder, name, options, *, num_threads):
        self.name = name
        FakeJudge.told = options

    def transcribe(self, audio):
        FakeJudge.calls += 1
        return Transcript("Go, " * (len(audio) // 1000), ())


class FakeMos:
    """Rates by length."""

    name, scores = "fake", ("length",)

    def rate(self, audio):
        return (len(audio) / 1000,)


@pytest.fixture(autouse=True)
def models(monkeypatch):
    monkeypatch.setattr(mos, "load_estimators", lambda names: [FakeMos()])
    monkeypatch.setattr(packages, "is_installed", lambda name: True)
    monkeypatch.setattr(perplexity, "TextLM", FakeLM)
    monkeypatch.setattr(asr_judge, "WhisperJudge", FakeJudge)
    monkeypatch.setattr("espnet_taste.weights.resolve", lambda name: name)
    monkeypatch.setattr("espnet_taste.weights.fingerprint", lambda folder: "0" * 20)
    FakeJudge.calls = 0


def run(folder, *options):
    return command.main(["--llm", "some", "--output_dir", str(folder), *options])


def test_given_texts_are_scored_without_a_judge(tmp_path, capsys):
    (tmp_path / "text").write_text("u One two, one two.\nv three\n")

    assert run(tmp_path / "out", "--text", str(tmp_path / "text")) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert facts["gen_ppl"]["value"] == pytest.approx(np.exp(2.0))
    assert facts["auto_bleu"]["value"] == pytest.approx(2 / 3)
    assert facts["judge"] == "none: given texts" and facts["llm"] == "some"
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["one two one two", "three"]
    out = capsys.readouterr().out
    assert "auto_bleu  0.667" in out
    assert "published, GenPPL: Slam, scaled 46.6; TWIST 7B 93.7" in out
    assert facts["published"].keys() == {
        "GenPPL", "GPT-4o (1-5)", "UTMOS", "human MOS"
    }  # fmt: skip


def test_prompts_without_a_continuation_are_told(tmp_path, capsys):
    """Scores are of those that spoke; how many did not is no secret."""
    (tmp_path / "text").write_text("u one two\n")
    rows = [{"key": key, "reason": "nothing_said"} for key in "vw"]
    for name, some in (("complete", rows), ("decode", rows[1:]), ("none", [])):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in some))
    files = [str(tmp_path / name) for name in ("complete", "decode", "none")]
    source = ("--text", str(tmp_path / "text"))

    assert run(tmp_path / "out", *source, "--excluded", *files) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert (facts["num_items"], facts["num_absent"]) == (1, 2)
    assert "2 more have no continuation" in capsys.readouterr().out
    source = ("--text", str(tmp_path / "read_later"))
    assert run(tmp_path / "out", *source, "--excluded", str(tmp_path / "no")) != 0
    assert str(tmp_path / "no") in capsys.readouterr().err


def test_audio_is_heard_once_and_rated(tmp_path, capsys):
    for key, count in {"u": 3000, "v": 1000}.items():
        wave = np.full(count, 0.1, dtype=np.float32)
        soundfile.write(tmp_path / f"{key}.wav", wave, 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\nv v.wav\n")
    options = ["--wav_scp", str(tmp_path / "wav.scp")]

    assert run(tmp_path / "out", *options) == 0
    assert run(tmp_path / "out", *options, "--batch_size", "1") == 0

    assert FakeJudge.calls == 2
    lines = (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    assert [json.loads(line)["num_words"] for line in lines] == [3, 1]
    assert [json.loads(line)["length"] for line in lines] == [3.0, None]
    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert facts["ratings"]["length"]["value"] == 3.0
    assert "1 have a rating too few" in capsys.readouterr().out

    assert run(tmp_path / "unrated", *options, "--mos") == 0
    facts = json.loads((tmp_path / "unrated" / "continuations.json").read_text())
    assert "ratings" not in facts


@pytest.mark.parametrize(
    ("options", "language", "spells"),
    [
        ([], "en", True),
        (["--language", "de", "--spell_numbers", "false"], "de", False),
        (["--language", "none"], None, True),
    ],
)
def test_the_judge_is_told_language_and_numbers(tmp_path, options, language, spells):
    soundfile.write(tmp_path / "u.wav", np.full(3000, 0.1, np.float32), 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\n")

    assert run(tmp_path, "--wav_scp", str(tmp_path / "wav.scp"), *options) == 0

    assert FakeJudge.told.language == language
    assert FakeJudge.told.spell_numbers == spells


def test_without_estimators_there_are_no_opinion_scores(tmp_path, monkeypatch, capsys):
    soundfile.write(tmp_path / "u.wav", np.full(3000, 0.1, np.float32), 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\n")
    options = ["--wav_scp", str(tmp_path / "wav.scp")]
    monkeypatch.setattr(packages, "is_installed", lambda name: False)

    assert run(tmp_path / "out", *options) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert facts["mos"] == [] and "ratings" not in facts
    assert facts["words"] == {"value": 3.0, "low": None, "high": None}
    assert "no opinion scores: distillmos is not" in capsys.readouterr().out


def test_an_estimator_that_is_asked_for_and_absent_is_named(
    tmp_path, monkeypatch, capsys
):
    def load(names):
        raise packages.MissingPackageError("scoring needs dnsmos: pip install it")

    soundfile.write(tmp_path / "u.wav", np.full(3000, 0.1, np.float32), 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\n")
    monkeypatch.setattr(mos, "load_estimators", load)
    options = ["--wav_scp", str(tmp_path / "wav.scp"), "--mos", "dnsmos"]

    assert run(tmp_path / "out", *options) == 1

    assert "score_continuations: scoring needs dnsmos" in capsys.readouterr().err


def test_prompts_are_cut_off(tmp_path, capsys):
    (tmp_path / "text").write_text("u Go on, two one.\n")
    (tmp_path / "report.jsonl").write_text('{"key": "u", "prompt": "go on"}\n')
    options = ["--text", str(tmp_path / "text")]
    options += ["--prompts", str(tmp_path / "report.jsonl")]

    assert run(tmp_path / "out", *options) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert facts["prompts_cut_off"] is True and facts["words"]["value"] == 2.0
    (tmp_path / "report.jsonl").write_text('{"key": "v", "prompt": "go on"}\n')
    assert run(tmp_path / "out", *options) == 1
    assert "report.jsonl: no prompt of 'u'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--text", "nowhere"], "nowhere"),
        (["--text", "nowhere", "--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_faults_are_named(tmp_path, options, message, capsys):
    assert run(tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err


def test_a_continuation_without_a_sample_is_counted(tmp_path):
    soundfile.write(tmp_path / "u.wav", np.full(3000, 0.1, np.float32), 16000)
    soundfile.write(tmp_path / "v.wav", np.zeros(0, np.float32), 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\nv v.wav\n")

    assert run(tmp_path / "out", "--wav_scp", str(tmp_path / "wav.scp")) == 0

    facts = json.loads((tmp_path / "out" / "continuations.json").read_text())
    assert (facts["num_items"], facts["num_empty"], facts["num_unrated"]) == (2, 1, 1)


def test_silence_alone_is_an_error(tmp_path, capsys):
    soundfile.write(tmp_path / "u.wav", np.zeros(500, np.float32), 16000)
    (tmp_path / "wav.scp").write_text("u u.wav\n")

    assert run(tmp_path / "out", "--wav_scp", str(tmp_path / "wav.scp")) == 1
    assert "no word was heard in 1 continuations" in capsys.readouterr().err
