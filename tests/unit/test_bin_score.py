"""The score command: every kind from its files to a score file."""

import json
import sys

import numpy as np
import pytest
import soundfile

from espnet_taste.bin import score
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import write_table
from espnet_taste.eval.asr_judge import Transcript
from espnet_taste.eval.audio_scores import Listener
from espnet_taste.eval.duration import TimedWord
from espnet_taste.eval.score_file import ScoreFile

TEXTS = {"a": "one two", "b": "three four"}


class FakeJudge:
    """Hears the same words in everything."""

    name = "fake"

    def transcribe(self, audio):
        return Transcript("one two", (TimedWord("one", 0, 1), TimedWord("two", 1, 2)))


@pytest.fixture
def fake_listener(monkeypatch):
    """Replace the two models, nothing else."""

    def build(args, *, needs_speaker):
        cache = args.output_dir / "judge.jsonl"
        embed = (lambda audio: np.ones(3)) if needs_speaker else score._no_speaker
        return Listener(FakeJudge(), cache, args.reference_cache, embed)

    monkeypatch.setattr(score, "_build_listener", build)


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "dump" / "test"
    folder.mkdir(parents=True)
    wavs = {}
    for number, key in enumerate(TEXTS):
        wavs[key] = str(folder / f"{key}.wav")
        samples = np.full(8000 * (number + 1), 0.1)
        soundfile.write(wavs[key], samples, 16000)
    write_table(folder / "wav.scp", wavs)
    write_table(folder / "text", TEXTS)
    lengths = {"a": "8000", "b": "16000"}
    write_table(folder / "utt2num_samples", lengths)
    return folder


def run(kind, data_dir, tmp_path, **options):
    """Call the command; return its status and the folder it wrote to."""
    output = tmp_path / "exp" / "sys" / "eval" / "test"
    argv = ["--kind", kind, "--system", "sys", "--set", "test"]
    argv += ["--data_dir", str(data_dir), "--output_dir", str(output)]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    return score.main(argv), output / f"scores_{kind}.json"


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def unit_rows(*keys, condition="matched"):
    counts = {"loss_sum": 6.0, "top1": 1, "top5": 2, "count": 3}
    return [{"key": key, "condition": condition, **counts} for key in keys]


def test_units(tmp_path, data_dir):
    rows = unit_rows("a", "b") + unit_rows("a", "b", condition="exchanged_text")

    path = write_lines(tmp_path / "u.jsonl", *rows)
    status, path = run("units", data_dir, tmp_path, unit_scores=path)

    assert status == 0
    assert ScoreFile.load(path).items["b"]["rise_exchanged_text_sum"] == 0.0


def test_original_audio(tmp_path, data_dir, fake_listener):
    cache = tmp_path / "judge.jsonl"

    status, path = run("audio", data_dir, tmp_path, reference_cache=cache)

    assert status == 0
    scores = ScoreFile.load(path)
    assert [scores.items[key]["word_errors"] for key in "ab"] == [0, 2]
    told = dict(scores.metadata)
    # The page may be written later, by another commit, on another machine.
    assert all(told.pop(name) for name in ("date", "commit", "hardware"))
    assert told == {"judge": "fake", "normaliser": "basic-1"}
    assert cache.exists()


def test_output_audio_with_its_generation_report(tmp_path, data_dir, fake_listener):
    report = write_lines(
        tmp_path / "report.jsonl",
        {"key": "a", "num_units": 12, "stopped_by": "end"},
        {"key": "b", "num_units": 0, "stopped_by": "max_len"},
    )

    status, path = run(
        "audio",
        data_dir,
        tmp_path,
        reference_cache=tmp_path / "judge.jsonl",
        wav_scp=data_dir / "wav.scp",
        generation_report=report,
    )

    assert status == 0
    scores = ScoreFile.load(path)
    assert scores.values == {"outputs": 2, "bounded_outputs": 1}
    assert scores.skipped["ended_by_length_bound"] == scores.skipped["no_units"] == 1
    assert scores.items["a"]["similarity"] == pytest.approx(1.0)


def test_a_generation_report_that_misses_an_utterance(
    tmp_path, data_dir, fake_listener, capsys
):
    row = {"key": "a", "num_units": 12, "stopped_by": "end"}
    status, path = run(
        "audio",
        data_dir,
        tmp_path,
        reference_cache=tmp_path / "judge.jsonl",
        generation_report=write_lines(tmp_path / "r.jsonl", row),
    )

    assert status == 1
    assert "no score for 1 utterances: ['b']" in capsys.readouterr().err
    assert not path.exists()


def test_codes_and_units(tmp_path, data_dir):
    for name, arrays in (
        ("codes", {"a": [[0, 1], [2, 3]], "b": [[1, 1]]}),
        ("units", {"a": [0, 1, 2], "b": [3]}),
    ):
        with ArkWriter(tmp_path / "arks", name) as writer:
            for key, array in arrays.items():
                writer(key, np.array(array, dtype=np.float32))

    status, path = run(
        "codes",
        data_dir,
        tmp_path,
        codes_scp=tmp_path / "arks" / "codes.scp",
        num_code_entries=4,
        units_scp=tmp_path / "arks" / "units.scp",
        num_units=4,
    )

    assert status == 0
    values = ScoreFile.load(path).values
    assert values["code_nominal_bps"] == pytest.approx(3 * 4 / 1.5)
    assert values["unit_nominal_bps"] == pytest.approx(4 * 2 / 1.5)
    assert values["text_steps"] == len("one two") + len("three four")


@pytest.fixture
def score_slm(tmp_path, data_dir):
    """Score a spoken LM on codes of two words, of which it counted some."""
    with ArkWriter(tmp_path / "arks", "codes") as writer:
        for key in TEXTS:
            writer(key, np.array([[0, 1], [1, 1]], dtype=np.float32))
    scp = tmp_path / "arks" / "codes.scp"

    def score(code_count):
        rows = [
            {"key": key, "condition": "matched", "text_loss_sum": 4.0, "text_count": 2,
             "code_count": code_count, "code_hits": [1, 1], "latent_loss_sum": 1.0}
            for key in TEXTS
        ]  # fmt: skip
        return run(
            "slm",
            data_dir,
            tmp_path,
            slm_scores=write_lines(tmp_path / "s.jsonl", *rows),
            codes_scp=scp,
            train_codes_scp=scp,
            num_code_entries=2,
        )

    return score


def test_slm_with_the_unigram_of_the_training_set(score_slm):
    status, path = score_slm(2)

    assert status == 0
    fields = ScoreFile.load(path).items["a"]
    assert (fields["slm_code_hits"], fields["unigram_slots"]) == (2, 4)


def test_scores_of_other_codes_are_not_compared_with_the_unigram(score_slm, capsys):
    status, _ = score_slm(3)

    assert status == 1
    assert "s.jsonl scores the codes of 3 words" in capsys.readouterr().err


def test_a_key_file_restricts_the_set(tmp_path, data_dir, fake_listener):
    (tmp_path / "keys").write_text("b\n")

    status, path = run(
        "audio",
        data_dir,
        tmp_path,
        reference_cache=tmp_path / "judge.jsonl",
        key_file=tmp_path / "keys",
    )

    assert status == 0
    assert list(ScoreFile.load(path).items) == ["b"]


def test_an_unknown_key_is_named(tmp_path, data_dir, capsys):
    (tmp_path / "keys").write_text("z\n")
    status, _ = run("codes", data_dir, tmp_path, key_file=tmp_path / "keys")

    assert status == 1
    assert "1 ids are not in" in capsys.readouterr().err


def test_an_option_its_kind_needs_is_named(tmp_path, data_dir, capsys):
    with pytest.raises(SystemExit) as caught:
        run("slm", data_dir, tmp_path, slm_scores="x")

    assert caught.value.code == 2
    assert "needs --codes_scp --train_codes_scp" in capsys.readouterr().err


def test_a_codebook_without_its_size_is_refused(tmp_path, data_dir, capsys):
    status, _ = run("codes", data_dir, tmp_path, codes_scp=tmp_path / "codes.scp")

    assert status == 1
    assert "--num_code_entries or --train_config" in capsys.readouterr().err


def test_sizes_come_from_the_training_config(tmp_path, data_dir, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("decoder_conf:\n    num_units: 4\nquantizer_conf: {}\n")
    with ArkWriter(tmp_path / "arks", "units") as writer:
        for key in TEXTS:
            writer(key, np.array([0.0, 3.0], dtype=np.float32))
    scp = tmp_path / "arks" / "units.scp"

    status, path = run("codes", data_dir, tmp_path, units_scp=scp, train_config=config)
    assert status == 0
    assert ScoreFile.load(path).values["unit_nominal_bits"] == 2.0

    status, _ = run("codes", data_dir, tmp_path, codes_scp=scp, train_config=config)
    assert status == 1
    assert "no quantizer_conf: codebook_size" in capsys.readouterr().err


def test_a_missing_package_is_one_line_with_its_remedy(
    tmp_path, data_dir, fake_listener, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "jiwer", None)
    status, _ = run("audio", data_dir, tmp_path, reference_cache=tmp_path / "j.jsonl")

    assert status == 1
    assert "scoring needs jiwer: pip install" in capsys.readouterr().err
