"""Prompts that end in the audio, so that nothing tells how the recording goes on."""

import json

import numpy as np
import pytest
import soundfile
from tiny_taste import no_quantizer, noise, tiny_tokenizer

from espnet_taste.bin import cut_prompts as command
from espnet_taste.data.data_dir import read_data_dir
from espnet_taste.data.kaldi import read_table, write_table
from espnet_taste.pipeline.interchange import write_tokens

RATE = 16000
WORDS = {"a": "one two three", "b": "four five", "c": "six"}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def timed(tokenizer, wave, text):
    """Encode; every word takes 0.2 s."""
    tokens = tokenizer.encode(wave, text, word_times=False)
    ends = 0.2 * np.arange(1, len(tokens) + 1, dtype=np.float32)
    object.__setattr__(tokens, "times", np.stack([ends - 0.2, ends], 1))
    return tokens


@pytest.fixture
def folder(tmp_path, tokenizer):
    """Two utterances in one recording by segments, one that has no tokens."""
    data = tmp_path / "data" / "set"
    data.mkdir(parents=True)
    soundfile.write(data / "r.flac", noise(2 * RATE), RATE)
    write_table(data / "wav.scp", {"r": "r.flac"})
    spans = {"a": "r 0.1 0.8", "b": "r 1.0 1.5", "c": "r 1.5 1.9"}
    write_table(data / "segments", spans)
    write_table(data / "text", WORDS)
    read = read_data_dir(data)
    rows = {key: timed(tokenizer, read.read(key), WORDS[key]) for key in "ab"}
    write_tokens(tmp_path / "tokens.jsonl", rows)
    return tmp_path


def run(folder, *options):
    return command.main(
        ["--data_dir", str(folder / "data" / "set"), "--output_dir"]
        + [str(folder / "prompts"), "--tokens", str(folder / "tokens.jsonl"), *options]
    )


def test_a_prompt_is_the_audio_up_to_the_nearest_word_end(folder):
    assert run(folder, "--prompt_s", "0.35", "--max_excluded", "0.5") == 0

    prompts = read_data_dir(folder / "prompts")
    assert prompts.text == {"a": "one two", "b": "four five"}
    whole = read_data_dir(folder / "data" / "set")
    for key in prompts.utterances:
        wave = prompts.read(key)
        assert len(wave) == pytest.approx(0.4 * RATE, abs=1)
        assert np.array_equal(wave, whole.read(key)[: len(wave)])
    (row,) = map(json.loads, (folder / "prompts" / "excluded.jsonl").open())
    assert (row["key"], row["reason"]) == ("c", "no_tokens")


def test_codes_of_a_prompt_do_not_know_what_follows(folder):
    """Those cut out of the whole recording do."""
    tokenizer = tiny_tokenizer(quantizer=no_quantizer())
    assert run(folder, "--prompt_s", "0.2", "--max_excluded", "0.5") == 0
    short = read_data_dir(folder / "prompts").read("a")
    wave = read_data_dir(folder / "data" / "set").read("a")
    ends = [noise(len(wave) - len(short), seed=seed) for seed in (1, 2)]
    waves = [np.concatenate([short, end]) for end in ends]

    def embeds(audio, text):
        return tokenizer.encode(audio, text, word_times=False)[:1].embeds

    cut_out = [embeds(wave, "one two three") for wave in waves]
    alone = [embeds(wave[: len(short)], "one") for wave in waves]
    assert abs(cut_out[0] - cut_out[1]).max() > 1e-4
    assert np.array_equal(*alone)


def test_without_transcripts_the_prompt_gets_none(folder):
    """One that was written of the whole recording would know what follows."""
    (folder / "data" / "set" / "text").unlink()
    assert run(folder, "--max_excluded", "0.5") == 0
    assert read_data_dir(folder / "prompts").text is None
    assert set(read_table(folder / "prompts" / "segments")) == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "1 of 3 utterances are excluded"), (("--prompt_s", "0"), "must be above 0")],
)
def test_what_cannot_be_cut_is_named(folder, options, message, capsys):
    assert run(folder, *options) == 1
    assert message in capsys.readouterr().err


def test_no_other_folder_is_written_over(folder, capsys):
    own = str(folder / "data" / "set")
    assert run(folder, "--output_dir", own, "--max_excluded", "0.5") == 1
    assert "is --data_dir; choose another" in capsys.readouterr().err
    theirs = folder / "theirs"
    theirs.mkdir()
    write_table(theirs / "text", {"z": "mine"})
    assert run(folder, "--output_dir", str(theirs), "--max_excluded", "0.5") == 1
    assert "is there already" in capsys.readouterr().err
    assert read_table(theirs / "text") == {"z": "mine"}
    for _ in range(2):  # its own may be made again
        assert run(folder, "--max_excluded", "0.5") == 0
    assert not (folder / "prompts" / "utt2spk").exists()


def test_without_times_nothing_can_be_cut(folder, tokenizer):
    wave = noise(8000)
    rows = {key: tokenizer.encode(wave, "one", word_times=False) for key in WORDS}
    (folder / "tokens.jsonl").unlink()
    write_tokens(folder / "tokens.jsonl", rows)
    assert run(folder, "--max_excluded", "1") == 1
    rows = (folder / "prompts" / "excluded.jsonl").read_text()
    assert rows.count('"no_times"') == 3


def test_counts_of_another_folder_are_not_written_over(folder, capsys):
    prompts = folder / "prompts"
    prompts.mkdir()
    write_table(prompts / "wav.scp", {"x": "x.flac"})
    (prompts / "excluded.jsonl").write_text("mine")

    assert run(folder, "--max_excluded", "0.5") == 1

    assert "is there already" in capsys.readouterr().err
    assert (prompts / "excluded.jsonl").read_text() == "mine"
