"""Which utterances of a set are prompts."""

import pytest

from espnet_taste.bin.continue_speech import choose_prompts
from espnet_taste.data.audio_output import AudioOutput
from espnet_taste.data.jobs import merge_jobs, read_keys, split_keys
from espnet_taste.data.kaldi import read_table, write_table


@pytest.mark.parametrize("max_prompts", [0, 1, 3, 9])
@pytest.mark.parametrize("num_jobs", [1, 2, 5])
def test_the_prompts_of_a_set_are_the_same_however_many_jobs(
    tmp_path, max_prompts, num_jobs
):
    write_table(tmp_path / "wav.scp", {f"u{n}": f"{n}.wav" for n in range(5)})
    parts = tmp_path / "parts"
    split_keys(read_keys(tmp_path, None), num_jobs, parts)

    for job in range(1, num_jobs + 1):
        keys = choose_prompts(tmp_path, parts / f"keys.{job}", max_prompts)
        output = AudioOutput(parts / str(job))
        for key in keys:
            (output.directory / "audio" / f"{key}.json").write_text("{}")
        output.close(keys)  # a job may have no prompt
    merge_jobs(parts, tmp_path / "out")

    expected = [f"u{n}" for n in range(5)][: max_prompts or None]
    assert list(read_table(tmp_path / "out" / "wav.scp")) == expected
    assert choose_prompts(tmp_path, None, max_prompts) == expected
