"""What would fail after hours, or flatter, is refused before the first stage works."""

import pytest
from recipe_shell import bash, needs_espnet

pytestmark = needs_espnet


def dry(*args):
    options = ("--dry_run", "true", "--at_once", "1")
    return bash("run.sh", "--corpus", "mini_an4", *options, *args)


def test_the_tokenizers_whisper_does_not_judge_itself():
    """Another format of the same weights is no independent judge."""
    base = ("--whisper", "openai/whisper-base")

    result = dry(*base)

    assert result.returncode == 2
    assert "--judge Systran/faster-whisper-base has the weights of" in result.stderr
    assert dry("--whisper", "openai/whisper-base.en").returncode == 0


def test_another_judge_reaches_all_word_errors():
    other = ("--judge", "Systran/faster-whisper-small")

    result = dry("--whisper", "openai/whisper-base", *other)

    assert result.returncode == 0, result.stderr
    judging = [line for line in result.stdout.splitlines() if "--kind audio" in line]
    assert judging and all(" ".join(other) in line for line in judging)
    assert "--judge" not in dry().stdout


@pytest.mark.parametrize("seconds", ["40", "0", "long"])
def test_audio_is_no_longer_than_whisper_hears(seconds):
    result = dry("--max_wav_duration", seconds)

    assert result.returncode == 2
    assert "--max_wav_duration is above 0 and at most 30" in result.stderr


def test_gpus_that_are_not_there_are_told_before_anything_works(tmp_path):
    options = ("--corpus", "mini_an4", "--ngpu", "99", "--stop_stage", "1")

    result = bash("run.sh", *options, "--datadir", str(tmp_path / "data"))

    assert result.returncode == 2 and "--ngpu 99: torch finds" in result.stderr
    assert "stage 1" not in result.stdout and not (tmp_path / "data").exists()
