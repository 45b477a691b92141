"""Commands that go over a prepared set: codes, and losses under all conditions."""

import json

import numpy as np
import pytest
import soundfile
import tiny_experiment
from tiny_taste import noise

from espnet_taste.bin import extract_codes, score_slm, score_units
from espnet_taste.data.ark_writer import ArkWriter
from espnet_taste.data.kaldi import read_scp_arrays, write_table
from espnet_taste.pipeline.slm import SpokenLMInference
from espnet_taste.pipeline.tokenizer import TokenizerInference
from espnet_taste.weights.digests import TRAINED_FILE

TEXTS = {"a": "one two", "b": "three", "c": "four five six"}
AFTER = {"a": "b", "b": "c", "c": "a"}  # whose codes and text are exchanged in


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("experiment")
    whisper = tiny_experiment.write_whisper(root / "whisper")
    folder = tiny_experiment.write_experiment(root / "exp", whisper)
    return tiny_experiment.write_spoken_lm(folder, root / "llm")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A set of three utterances with the features of all stages before."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    for number, key in enumerate(TEXTS):
        soundfile.write(folder / f"{key}.wav", noise(8000, seed=number), 16000)
    write_table(folder / "wav.scp", {key: f"{key}.wav" for key in TEXTS})
    write_table(folder / "text", TEXTS)
    write_table(folder / "utt2spk", {key: key for key in TEXTS})
    with ArkWriter(folder, "units") as writer:
        for key in TEXTS:
            drawn = rng.integers(0, tiny_experiment.NUM_UNITS, 12)
            writer(key, drawn.astype(np.float32))
    with ArkWriter(folder, "spembs") as writer:
        for key in TEXTS:
            vector = rng.standard_normal(tiny_experiment.SPEAKER_DIM)
            writer(key, vector.astype(np.float32))
    return folder


def run(command, prepared, output, **options):
    argv = ["--data_dir", str(prepared), "--output_dir", str(output)]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    output.mkdir(exist_ok=True)
    return command.main(argv)


def test_codes_are_those_of_the_model_in_ark_and_table(experiment, prepared, tmp_path):
    model_file = experiment / "taste" / TRAINED_FILE
    options = {"features_dir": prepared, "model_file": model_file, "batch_size": 2}

    assert run(extract_codes, prepared, tmp_path / "out", **options) == 0

    model = TokenizerInference(model_file)
    utterances = model.open(prepared, prepared)
    written = read_scp_arrays(tmp_path / "out" / "codes.scp")
    lines = (tmp_path / "out" / "codes.tsv").read_text().splitlines()[1:]
    table = [line.split("\t") for line in lines]
    for key, text in TEXTS.items():
        (codes,) = model.word_codes([(key, utterances[key])])
        np.testing.assert_array_equal(written[key], codes)
        rows = [row for row in table if row[0] == key]
        assert [row[1] for row in rows] == text.split()
        assert [row[-1] for row in rows] == [" ".join(map(str, row)) for row in codes]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_unit_losses_are_of_the_next_utterances_text_and_codes(
    experiment, prepared, tmp_path, batch_size
):
    model_file = experiment / "taste" / TRAINED_FILE
    options = {"features_dir": prepared, "model_file": model_file}
    options["batch_size"] = batch_size

    assert run(score_units, prepared, tmp_path / "out", **options) == 0

    model = TokenizerInference(model_file)
    utterances = model.open(prepared, prepared)
    lines = (tmp_path / "out" / "unit_scores.jsonl").read_text().splitlines()
    rows = {(r["condition"], r["key"]): r for r in map(json.loads, lines)}
    assert len(rows) == 4 * len(TEXTS)
    for key, other in AFTER.items():
        pair = [(key, utterances[key])], [(other, utterances[other])]
        for condition, (expected,) in model.unit_counts(*pair).items():
            found = rows[condition, key]
            assert found["count"] == expected["count"] == 13
            assert found["loss_sum"] == pytest.approx(expected["loss_sum"], rel=1e-5)
        matched, other_text = (
            rows[name, key]["loss_sum"] for name in ("matched", "exchanged_text")
        )
        assert abs(matched - other_text) > 1e-3


def test_spoken_lm_losses_are_of_the_next_utterances_codes(
    experiment, prepared, tmp_path
):
    rng = np.random.default_rng(1)
    with ArkWriter(tmp_path / "codes", "codes") as writer:
        for key, text in TEXTS.items():
            drawn = rng.integers(0, 8, (len(text.split()), 2))
            writer(key, drawn.astype(np.float32))
    slm_file, codes = experiment / "slm" / TRAINED_FILE, tmp_path / "codes"
    options = {"codes_dir": codes, "slm_file": slm_file, "batch_size": 2}
    options["train_codes_scp"] = codes / "codes.scp"

    assert run(score_slm, prepared, tmp_path / "out", **options) == 0

    model = SpokenLMInference(slm_file)
    utterances = model.open(prepared, codes)
    mean = model.mean_latent(read_scp_arrays(codes / "codes.scp"))
    lines = (tmp_path / "out" / "slm_scores.jsonl").read_text().splitlines()
    rows = {(r["condition"], r["key"]): r for r in map(json.loads, lines)}
    for key, other in AFTER.items():
        pair = [(key, utterances[key])], [(other, utterances[other])]
        for expected in model.scores(*pair, mean):
            found = rows[expected["condition"], key]
            assert found.keys() == expected.keys()
            assert found["text_loss_sum"] == pytest.approx(
                expected["text_loss_sum"], rel=1e-4
            )
            if "latent_error_sum" in expected:
                assert found["latent_error_sum"] == pytest.approx(
                    expected["latent_error_sum"], rel=1e-4
                )
