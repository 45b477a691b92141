"""Formatting and alignment split over jobs end as one job does."""

import contextlib
import io
import json

import numpy as np
import pytest
import soundfile

from espnet_taste.align.contracts import AbsAligner, uniform_times
from espnet_taste.bin import align, extract_mel, format_audio
from espnet_taste.bin import split_keys as split_command
from espnet_taste.data.data_dir import finish_joined
from espnet_taste.data.jobs import merge_jobs, split_keys, utterance_ids
from espnet_taste.data.kaldi import read_scp_arrays, read_table


class EvenAligner(AbsAligner):
    def align(self, audio, words, *, key=""):
        return uniform_times(len(words), len(audio) / 16000)


def folder_of(path):
    path.mkdir()
    tables = {"wav.scp": "", "text": "only_text hello\n", "utt2spk": ""}
    for number in range(9):
        key = f"u{number}"
        length = 3 if number == 4 else 4000 + number
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, length)
        soundfile.write(path / f"{key}.wav", samples, 16000)
        tables["wav.scp"] += f"{key} {key}.wav\n"
        tables["text"] += f"{key} word {number}\n"
        tables["utt2spk"] += f"{key} s{number % 2}\n"
    for name, lines in tables.items():
        (path / name).write_text(lines)
    return path


def in_jobs(number, main, data, output):
    parts = output / ".parts"
    split_keys(utterance_ids(data), number, parts)
    for job in range(1, number + 1):
        run(main, data, parts / str(job), "--key_file", parts / f"keys.{job}")
    merge_jobs(parts, output)
    with contextlib.redirect_stdout(io.StringIO()):
        finish_joined(output)


def run(main, data, output, *options):
    argv = ["--data_dir", data, "--output_dir", output, *options]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([str(arg) for arg in argv]) == 0


def counts_of(folder):
    summary = json.loads((folder / "summary.json").read_text())
    if "seconds_kept" in summary:
        summary["seconds_kept"] = round(summary["seconds_kept"], 2)
    return summary


@pytest.mark.parametrize("numbers", [(3, 2), (2, 4)])
def test_a_run_goes_on_with_another_number_of_jobs(tmp_path, numbers):
    """What a job finds of the former split is another one's to list."""
    data = folder_of(tmp_path / "data")
    (data / "text").unlink()  # every utterance has audio
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    soundfile.write(data / "u4.wav", samples, 16000)

    for number in numbers:
        in_jobs(number, extract_mel.main, data, tmp_path / "mel")

    keys = utterance_ids(data)
    assert list(read_scp_arrays(tmp_path / "mel" / "mel.scp")) == keys
    assert list(read_table(tmp_path / "mel" / "mel_shape")) == keys


@pytest.mark.parametrize("number", [1, 3, 4])
def test_jobs_end_as_one_job_does(tmp_path, monkeypatch, number):
    monkeypatch.setattr(align, "build_aligner", lambda args, keys: EvenAligner())
    data = folder_of(tmp_path / "data")
    run(format_audio.main, data, tmp_path / "raw")
    run(align.main, tmp_path / "raw", tmp_path / "aligned")

    in_jobs(number, format_audio.main, data, tmp_path / "raw_jobs")
    in_jobs(number, align.main, tmp_path / "raw_jobs", tmp_path / "aligned_jobs")

    for one in (tmp_path / "raw", tmp_path / "aligned"):
        other = one.with_name(one.name + "_jobs")
        for name in ("text", "utt2spk", "spk2utt", "utt2num_samples"):
            assert read_table(one / name) == read_table(other / name)
        excluded = (one / "excluded.jsonl").read_text()
        assert excluded == (other / "excluded.jsonl").read_text()
        assert counts_of(one) == counts_of(other)
        assert (
            read_table(one / "wav.scp").keys() == read_table(other / "wav.scp").keys()
        )
    one, other = tmp_path / "aligned", tmp_path / "aligned_jobs"
    assert (one / "words.ctm").read_text() == (other / "words.ctm").read_text()
    times = read_scp_arrays(one / "word_times.scp")
    again = read_scp_arrays(other / "word_times.scp")
    for key in times:
        np.testing.assert_array_equal(times[key], again[key])
    summary = json.loads((tmp_path / "raw_jobs" / "summary.json").read_text())
    assert summary["total"] == 10 and summary["kept"] == 8


def test_the_exclusion_limit_counts_over_all_jobs(tmp_path):
    """One job may leave out all of its part, the set must not."""
    from espnet_taste.bin.merge_jobs import main
    from espnet_taste.data.jobs import split_keys

    parts = tmp_path / "parts"
    split_keys(["a", "b"], 2, parts)
    for job, counts in ((1, (1, 0)), (2, (0, 1))):
        kept, left_out = counts
        (parts / str(job)).mkdir()
        (parts / str(job) / "summary.json").write_text(
            f'{{"total": 1, "kept": {kept}, "excluded": {{"silent": {left_out}}},'
            ' "max_excluded": "0.2"}'
        )

    status = main(["--parts_dir", str(parts), "--output_dir", str(tmp_path / "out")])

    assert status == 1


def test_a_folder_without_utterances_is_named(tmp_path, capsys):
    (tmp_path / "wav.scp").write_text("\n")
    options = ["--num_jobs", "2", "--output_dir", str(tmp_path / "parts")]

    assert split_command.main(["--data_dir", str(tmp_path), *options]) == 1

    assert f"no utterances in {tmp_path}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("least", "number"), [("1", 2), ("5", 2), ("6", 1), ("99", 1), ("0", 2)]
)
def test_no_job_is_given_less_than_is_worth_its_start(tmp_path, least, number):
    from espnet_taste.bin.split_keys import main

    data = folder_of(tmp_path / "data")
    options = ["--data_dir", str(data), "--output_dir", str(tmp_path / "parts")]

    assert main([*options, "--num_jobs", "2", "--least", least]) == 0

    assert int((tmp_path / "parts" / "num_jobs").read_text()) == number
    assert len(list((tmp_path / "parts").glob("keys.*"))) == number
