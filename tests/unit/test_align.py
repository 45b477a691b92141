"""The alignment command: its folder, its exclusions, and going on after a kill."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from fault_injection import Killed, Power

from espnet_taste.align.contracts import AbsAligner, AlignmentError, uniform_times
from espnet_taste.bin import align
from espnet_taste.bin.align import main
from espnet_taste.data.kaldi import read_scp_arrays, read_table

TEXTS = {
    "a": "Hello , world",
    "b": "one two three",
    "c": "bad words",
    "d": "- so",
    "e": "...",
}


GRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
0.5
<exists>
1
"IntervalTier"
"words"
0
0.5
3
0
0.1
"one"
0.1
0.2
"two"
0.2
0.5
"three"
"""


class EvenAligner(AbsAligner):
    """Splits evenly, refuses "bad", and remembers whom it was asked for."""

    def __init__(self):
        self.asked = []

    def align(self, audio, words, *, key=""):
        self.asked.append(key)
        if "bad" in words:
            raise AlignmentError("not_aligned", "it is bad")
        return uniform_times(len(words), len(audio) / 16000)


@pytest.fixture
def aligner(monkeypatch):
    made = EvenAligner()
    monkeypatch.setattr(align, "build_aligner", lambda args, keys: made)
    return made


@pytest.fixture
def data(tmp_path):
    return make(tmp_path / "data", TEXTS)


def make(folder, texts):
    """Lay out a folder as format_audio leaves it."""
    folder.mkdir()
    rows = {name: "" for name in ("wav.scp", "text", "utt2spk", "utt2num_samples")}
    for number, (key, text) in enumerate(texts.items()):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 8000 + number)
        soundfile.write(folder / f"{key}.flac", samples, 16000)
        rows["wav.scp"] += f"{key} {key}.flac\n"
        rows["text"] += f"{key} {text}\n"
        rows["utt2spk"] += f"{key} s{number % 2}\n"
        rows["utt2num_samples"] += f"{key} {8000 + number}\n"
    for name, lines in rows.items():
        (folder / name).write_text(lines)
    return folder


def run(data, output, *options):
    argv = ["--data_dir", data, "--output_dir", output, *options]
    return main([str(arg) for arg in argv])


LOOSE = ("--max_excluded", "0.5")


def test_the_folder_has_words_and_times_that_match(tmp_path, data, aligner):
    assert run(data, tmp_path / "out", *LOOSE) == 0

    out = tmp_path / "out"
    text = read_table(out / "text")
    assert text == {"a": "Hello, world", "b": "one two three", "d": "-so"}
    times = read_scp_arrays(out / "word_times.scp")
    assert {key: array.shape for key, array in times.items()} == {
        key: (len(words.split()), 2) for key, words in text.items()
    }
    assert times["b"].dtype == np.float32
    for name in ("wav.scp", "utt2spk", "utt2num_samples"):
        assert list(read_table(out / name)) == ["a", "b", "d"]
    assert read_table(out / "wav.scp")["a"] == str(data / "a.flac")
    assert read_table(out / "spk2utt") == {"s0": "a", "s1": "b d"}
    ctm = (out / "words.ctm").read_text().splitlines()
    assert ctm[:2] == ["a 1 0.000 0.250 Hello,", "a 1 0.250 0.250 world"]
    assert len(ctm) == 6


def test_signs_of_scripts_without_blanks_are_words(tmp_path, aligner):
    """As in encode; else a sentence would be one word with one code."""
    data = make(tmp_path / "data", {"a": "\u4f60\u597d\uff0cabc \u0e01\u0e34\u0e19"})

    assert run(data, tmp_path / "out") == 0

    text = read_table(tmp_path / "out" / "text")["a"]
    assert text == "\u4f60 \u597d\uff0c abc \u0e01\u0e34 \u0e19"
    assert len(read_scp_arrays(tmp_path / "out" / "word_times.scp")["a"]) == 5


def test_failures_are_counted_and_named(tmp_path, data, aligner, capsys):
    assert run(data, tmp_path / "out", *LOOSE) == 0

    lines = (tmp_path / "out" / "excluded.jsonl").read_text().splitlines()
    found = {row["key"]: row["reason"] for row in map(json.loads, lines)}
    assert found == {"c": "not_aligned", "e": "no_speakable_word"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["kept"] == 3 and summary["words"] == 6
    assert summary["words_attached"] == 2 and summary["aligned_uniformly"] == 0
    assert "not_aligned" in capsys.readouterr().out


def test_failures_can_be_split_evenly_instead(tmp_path, data, aligner):
    assert run(data, tmp_path / "out", "--on_failure", "uniform") == 0

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["aligned_uniformly"] == 1 and summary["kept"] == 4
    times = read_scp_arrays(tmp_path / "out" / "word_times.scp")["c"]
    np.testing.assert_allclose(times[:, 0], [0, 0.25], atol=1e-3)


def test_too_many_failures_stop(tmp_path, data, aligner, capsys):
    assert run(data, tmp_path / "out") == 1
    assert "2 of 5 utterances are excluded" in capsys.readouterr().err


def test_an_unreadable_file_is_counted(tmp_path, data, aligner):
    (data / "b.flac").unlink()

    assert run(data, tmp_path / "out", "--max_excluded", "0.9") == 0
    assert "b" not in read_table(tmp_path / "out" / "text")
    assert '"unreadable"' in (tmp_path / "out" / "excluded.jsonl").read_text()


def content(folder):
    return {
        path.name: path.read_bytes().replace(str(folder).encode(), b"")
        for path in folder.iterdir()
        if path.suffix in ("", ".ctm", ".json", ".jsonl") and path.name[0] != "."
    }


def test_killed_anywhere_it_goes_on_and_ends_the_same(tmp_path, data, aligner):
    assert run(data, tmp_path / "whole", *LOOSE) == 0
    whole = content(tmp_path / "whole")
    assert len(whole) == 7

    last, killed = 0, True
    while killed:
        last += 5
        out = tmp_path / f"killed{last}"
        aligner.asked.clear()
        with pytest.MonkeyPatch.context() as patch:
            Power(patch, last)
            try:
                run(data, out, *LOOSE)
                killed = False
            except Killed:
                pass
        assert run(data, out, *LOOSE) == 0
        assert content(out) == whole
        times = read_scp_arrays(out / "word_times.scp")
        assert [times[key].shape[0] for key in ("a", "b", "d")] == [2, 3, 1]
    assert last > 40


def test_a_journal_that_lost_its_end_in_a_power_cut(tmp_path, data, aligner):
    """Chunks are synced to disk, journal lines are not."""
    assert run(data, tmp_path / "whole", *LOOSE) == 0
    assert run(data, tmp_path / "out", *LOOSE) == 0
    journal = tmp_path / "out" / ".journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(True)[:2]))

    assert run(data, tmp_path / "out", *LOOSE) == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_finished_folder_asks_nobody_again(tmp_path, data, aligner):
    run(data, tmp_path / "out", *LOOSE)
    aligner.asked.clear()

    assert run(data, tmp_path / "out", *LOOSE) == 0
    assert aligner.asked == []


def test_jobs_with_other_keys_than_before_write_only_theirs(tmp_path, data, aligner):
    """The number of jobs may change between a kill and the next run."""
    keys = tmp_path / "keys"
    for part in ("a\nb\n", "b\nd\n"):
        keys.write_text(part)
        assert run(data, tmp_path / "out", "--key_file", keys) == 0

    for name in ("word_times.scp", "text", "wav.scp"):
        assert list(read_table(tmp_path / "out" / name)) == ["b", "d"]
    assert aligner.asked == ["a", "b", "d"]
    keys.write_text("a\nb\n")
    assert run(data, tmp_path / "out", "--key_file", keys) == 0
    assert list(read_scp_arrays(tmp_path / "out" / "word_times.scp")) == ["a", "b"]


def test_what_could_not_be_read_is_asked_for_again(tmp_path, data, aligner):
    hidden = (data / "a.flac").rename(tmp_path / "a.flac")
    assert run(data, tmp_path / "out", "--max_excluded", "0.1") == 1
    hidden.rename(data / "a.flac")
    aligner.asked.clear()

    assert run(data, tmp_path / "out", "--max_excluded", "0.5") == 0

    assert aligner.asked == ["a"]
    assert list(read_table(tmp_path / "out" / "text")) == ["a", "b", "d"]


def test_times_that_were_not_there_are_looked_for_again(tmp_path, data):
    """A CTM in another format of the same name would be; so is a folder that grew."""
    grids = tmp_path / "grids"
    grids.mkdir()
    options = ("--aligner", "existing", "--alignments", grids)
    options += ("--max_excluded", "0.9", "--on_failure", "exclude")
    assert run(data, tmp_path / "out", *options) == 1
    (grids / "b.TextGrid").write_text(GRID)

    assert run(data, tmp_path / "out", *options) == 0

    assert list(read_table(tmp_path / "out" / "text")) == ["b"]


def test_another_aligner_is_refused_in_the_same_folder(tmp_path, data, aligner, capsys):
    run(data, tmp_path / "out", *LOOSE)

    assert run(data, tmp_path / "out", *LOOSE, "--aligner", "whisper") == 1
    assert "aligner pocketsphinx -> whisper" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("utt2num_samples", "run it first"),
        ("utt2spk", "run it first"),
        ("text", "espnet_taste.bin.transcribe"),
        ("wav.scp", "no wav.scp"),
    ],
)
def test_an_unformatted_folder_is_refused(
    tmp_path, data, aligner, capsys, missing, message
):
    (data / missing).unlink()

    assert run(data, tmp_path / "out") == 1
    assert message in capsys.readouterr().err


def test_the_input_folder_keeps_its_text(tmp_path, data, aligner, capsys):
    assert run(data, data) == 1
    assert "must not be --data_dir" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aligner", "existing"], "needs --alignments"),
        (["--aligner", "existing", "--alignments", "gone.ctm"], "gone.ctm"),
        (["--aligner", "ctc"], "--asr_config and --asr_model_file"),
    ],
)
def test_aligners_name_the_option_they_lack(tmp_path, data, capsys, options, message):
    assert run(data, tmp_path / "out", *options) == 1
    assert message in capsys.readouterr().err


def test_existing_times_end_to_end(tmp_path, data):
    ctm = tmp_path / "a.ctm"
    ctm.write_text("a 1 0.1 0.1 HELLO\na 1 0.3 0.1 WORLD\nb 1 0 0.1 one\n")
    options = ("--aligner", "existing", "--alignments", ctm, "--max_excluded", "0.9")

    assert run(data, tmp_path / "out", *options) == 0

    times = read_scp_arrays(tmp_path / "out" / "word_times.scp")
    assert list(times) == ["a"]
    np.testing.assert_allclose(times["a"], [[0.1, 0.2], [0.3, 0.4]], atol=1e-6)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["excluded"] == {
        "no_alignment": 2,
        "no_speakable_word": 1,
        "words_differ": 1,
    }


@pytest.mark.parametrize("module", ["align", "transcribe"])
def test_help_loads_nothing_heavy(module):
    code = f"import sys, espnet_taste.bin.{module} as m; m.get_parser();"
    code += "print([n for n in ('torch', 'transformers', 'espnet2', 'pocketsphinx')"
    code += " if n in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_options_of_other_aligners_are_no_settings(tmp_path, data, aligner):
    """The recipe always passes --whisper."""
    assert run(data, tmp_path / "out", *LOOSE, "--whisper", "one") == 0
    assert run(data, tmp_path / "out", *LOOSE, "--whisper", "other") == 0
