"""The whole recipe on ESPnet's own CI corpus, linked into an ESPnet tree and killed.

Minutes a run: `make integration`. Two trees get the same command; in one of them it is
killed in stage after stage and started again.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
ESPNET = Path(os.environ.get("ESPNET_ROOT") or ROOT / ".espnet")
# Stage to seconds after its first line: in the middle of jobs, trainings and scores.
KILLS = {
    "extract_features": 4.0,
    "train_units": 25.0,
    "train_without_vq": 25.0,
    "extract_codes": 6.0,
    "train_slm": 12.0,
    "reconstruct": 8.0,
    "score_tokenizers": 10.0,
    "continue_speech": 10.0,
}
WHEN = {"date", "commit", "duration", "hardware"}  # what may differ in results.json

pytestmark = [
    pytest.mark.recipe,
    pytest.mark.timeout(5400),
    pytest.mark.skipif(
        not (ESPNET / "egs2" / "TEMPLATE" / "asr1" / "utils").is_dir(),
        reason="needs ESPnet's tree: make setup",
    ),
]


def link_tree(folder):
    """Make an ESPnet tree of links, into which a recipe can be linked."""
    for place in ESPNET.iterdir():
        if place.name != "egs2":
            (folder / place.name).symlink_to(place)
    (folder / "egs2" / "mini_an4").mkdir(parents=True)
    (folder / "egs2" / "TEMPLATE").symlink_to(ESPNET / "egs2" / "TEMPLATE")
    for place in (ESPNET / "egs2" / "mini_an4").iterdir():
        if place.name != "taste1":
            (folder / "egs2" / "mini_an4" / place.name).symlink_to(place)
    command = [ROOT / "tools" / "link_recipe.sh", folder, "mini_an4"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "egs2" / "mini_an4" / "taste1"


def start(recipe):
    """Start the recipe in a process group of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "ESPNET_ROOT"}
    return subprocess.Popen(
        ["./run.sh"],
        cwd=recipe,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_session(leader):
    """Kill a process with all that it started, in whichever process group."""
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            session = place.read_text().rsplit(")", 1)[1].split()[3]
            if session == str(leader):
                os.kill(int(place.parent.name), signal.SIGKILL)


def run_until_killed(recipe, stage, after_s):
    """Kill the recipe with all that it started, some seconds into a stage.

    Returns:
        Whether it was killed; False if the stage was over before.
    """
    process = start(recipe)
    timer = None
    for line in process.stdout:
        is_stage = f": {stage} " in line and " stage " in line
        if timer is None and is_stage:
            timer = threading.Timer(after_s, kill_session, (process.pid,))
            timer.start()
    if timer is not None:
        timer.cancel()
    return process.wait() == -signal.SIGKILL


def run_to_the_end(recipe):
    process = start(recipe)
    out, _ = process.communicate()
    assert process.returncode == 0, out[-4000:]
    return out


def results_of(recipe):
    """Return the results without what says when and how long."""

    def clean(value):
        if isinstance(value, dict):
            kept = {k: v for k, v in value.items() if k.split(" of ")[0] not in WHEN}
            return {k: clean(v) for k, v in kept.items()}
        return [clean(v) for v in value] if isinstance(value, list) else value

    return clean(json.loads((recipe / "exp/mini_an4/results.json").read_text()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a recipe folder in which an unbroken run has ended."""
    recipe = link_tree(tmp_path_factory.mktemp("whole"))
    run_to_the_end(recipe)
    return recipe


def test_it_ends_with_results_plots_and_a_pack(whole):
    exp = whole / "exp" / "mini_an4"
    results = json.dumps(results_of(whole))

    assert all(
        f'"{name}"' in results for name in ("units", "text_only", "taste", "slm")
    )
    assert "# " in (exp / "RESULTS.md").read_text()
    plots = list((exp / "taste" / "att_ws").rglob("*.png"))
    assert plots and all(path.stat().st_size > 1000 for path in plots)
    assert (exp / "taste.zip").is_file()
    assert list((exp / "taste" / "audio" / "test").rglob("*.flac"))


def test_a_second_run_computes_nothing(whole):
    exp = whole / "exp" / "mini_an4"
    before = {p: p.stat().st_mtime_ns for p in exp.rglob("*.pth")}
    start_s = time.monotonic()

    run_to_the_end(whole)

    assert time.monotonic() - start_s < 120  # the machine may be busy
    assert before == {p: p.stat().st_mtime_ns for p in exp.rglob("*.pth")}


def test_a_run_killed_in_every_kind_of_stage_ends_with_the_same_results(
    whole, tmp_path
):
    recipe = link_tree(tmp_path)
    killed = [
        stage
        for stage, after in KILLS.items()
        if run_until_killed(recipe, stage, after)
    ]
    run_to_the_end(recipe)

    assert len(killed) > len(KILLS) // 2, f"only {killed} were met at work"
    assert results_of(recipe) == results_of(whole)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_the_five_lines_of_the_readme_work_on_what_was_trained(whole, kind):
    from espnet_taste.data.audio import read_audio
    from espnet_taste.data.kaldi import read_table
    from espnet_taste.pipeline.spoken_lm import TasteSpokenLM
    from espnet_taste.slm.generation import CompletionSettings

    exp = whole / "exp" / "mini_an4"
    lm = TasteSpokenLM.from_pretrained(exp if kind == "folder" else exp / "taste.zip")
    value = next(iter(read_table(whole / "dump/raw/test/wav.scp").values()))
    tokens = lm.tokenizer.encode(read_audio(value, folder=whole))

    answer = lm.complete(tokens, CompletionSettings(max_words=2))
    audio = lm.tokenizer.decode(tokens + answer).audio

    assert len(tokens) > 0 and tokens.codes.shape[0] == len(tokens)
    assert 1 <= len(answer) <= 2
    assert np.isfinite(audio).all() and len(audio) > 0
