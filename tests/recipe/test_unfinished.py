"""What is unfinished, or made of something else, is neither built on nor reported."""

import os
import signal
import subprocess
import time

import pytest
from recipe_shell import ONCE, RECIPE, needs_espnet, once

pytestmark = needs_espnet

USE = "once b/.done --from {} -- touch used\n"


@pytest.mark.parametrize("source", ["model.pth", "", "units.scp,units,kaldi_ark"])
def test_nothing_is_built_on_a_training_that_was_killed(tmp_path, source):
    """Its best model so far is there, and would be taken for the model."""
    (tmp_path / "a").mkdir()
    for name in (".begun", ".done.part", "model.pth", "units.scp"):
        (tmp_path / "a" / name).write_text("x\n")
    use = USE.format(f"./a/{source}")

    result = once(tmp_path, use)

    assert result.returncode == 2 and not (tmp_path / "used").exists()
    assert "was begun and is not finished; run what makes it" in result.stderr
    (tmp_path / "a" / ".done").write_text("x\n")
    assert once(tmp_path, use).returncode == 0 and (tmp_path / "used").exists()


def test_a_finished_step_needs_its_inputs_no_more(tmp_path):
    (tmp_path / "a").mkdir()
    use = USE.format("a/model.pth")
    assert once(tmp_path, use).returncode == 0

    (tmp_path / "a" / ".begun").write_text("x\n")

    assert once(tmp_path, use).returncode == 0


def test_a_check_makes_nothing_and_refuses_what_is_stale(tmp_path):
    check = "checking=true; once out/.done {} -- touch made\n"
    assert once(tmp_path, check.format("a")).returncode == 0
    assert not list(tmp_path.iterdir())

    assert once(tmp_path, "once out/.done a -- true\n").returncode == 0

    assert once(tmp_path, check.format("a")).returncode == 0
    result = once(tmp_path, check.format("b"))
    assert result.returncode == 2 and "out was made with what is" in result.stderr
    assert not (tmp_path / "made").exists()


STAGES = """
python=true; speaker_model=s; device=cpu; max_excluded=0; whisper=w; exp=exp; tag=
encoder_states=true; taste_config=taste.yaml; config_dir=conf; skip_stages=
. "$1"/stages.sh; . "$1"/scores.sh
exp=exp
"""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_report_refuses_scores_of_a_model_that_was_trained_again(tmp_path):
    models = tmp_path / "exp"
    for name in ("units_only", "taste"):
        write(models / name / ".done", "first\n")
    write(models / "taste" / "valid.loss.best.pth", "")
    steps = "split_jobs() { :; }; dset=te\nscore_tokenizer taste\n"
    result = once(tmp_path, STAGES + steps)
    assert result.returncode == 0, result.stderr
    check = "split_jobs() { touch made; }; check_scores\n"
    assert once(tmp_path, STAGES + check).returncode == 0

    write(models / "taste" / ".done", "second\n")
    result = once(tmp_path, STAGES + check)

    assert result.returncode == 2 and not (tmp_path / "made").exists()
    assert "exp/taste/" in result.stderr and "made with what is" in result.stderr


ENCODER = "encoder: whisper\nencoder_conf:\n  value_layer: {}\n"


def test_a_training_refuses_the_states_of_another_encoder(tmp_path):
    """They are as wide, and audio that comes later would be encoded otherwise."""
    write(tmp_path / "conf" / "taste.yaml", ENCODER.format(1) + "max_epoch: 1\n")
    write(tmp_path / "conf" / "same.yaml", ENCODER.format(1) + "max_epoch: 9\n")
    write(tmp_path / "conf" / "other.yaml", ENCODER.format(3) + "max_epoch: 1\n")
    write(tmp_path / "conf" / "text_only.yaml", "encoder: none\nmax_epoch: 1\n")
    made = (
        'split_jobs() { :; }; for dset in tr cv; do extract_features "${dset}"; done\n'
    )
    assert once(tmp_path, STAGES + made).returncode == 0

    def refusal(name, before=""):
        step = f"{before}refuse_other_states {name}.yaml\n"
        result = once(tmp_path, STAGES + step)
        return result.stderr if result.returncode else None

    assert refusal("same") is None and refusal("text_only") is None
    told = refusal("other")
    assert "<   value_layer: 1" in told and ">   value_layer: 3" in told
    assert "conf/other.yaml is not of the encoder states in dump/features/tr" in told
    assert "> tiny" in refusal("same", "whisper=tiny; ")
    assert refusal("other", "encoder_states=false; ") is None


SPLIT = """
python=ran; nj={}
ran() {{
    echo "$*" >> log
    [[ "$*" == *split_keys* ]] || return 0
    while [ "$1" != --num_jobs ]; do shift; done
    mkdir -p out/.parts.extract; echo "$2" > out/.parts.extract/num_jobs
}}
train_cmd=run.pl
run.pl() {{ echo "run.pl $*" >> log; {} }}
jobs data out extract
"""


@pytest.mark.parametrize(("nj", "limit"), [(2, " --max-jobs-run 2"), (8, "")])
def test_begun_work_keeps_its_jobs_and_a_run_its_number(tmp_path, nj, limit):
    """Divided anew, each job would find hardly anything of its own."""
    half = "mkdir -p out/.parts.extract/1; touch out/.parts.extract/1/x; return 1;"
    assert once(tmp_path, SPLIT.format(4, half)).returncode != 0
    (tmp_path / "log").unlink()

    result = once(tmp_path, SPLIT.format(nj, "return 0;"))

    assert result.returncode == 0, result.stderr
    assert "out/.parts.extract: goes on as 4 jobs" in result.stdout
    split, launched, _ = (tmp_path / "log").read_text().splitlines()
    assert "--num_jobs 4 " in split
    assert launched.startswith(f"run.pl{limit} JOB=1:4 ")


def test_what_only_a_clusters_launcher_has_left_is_no_work(tmp_path):
    queued = "mkdir -p out/.parts.extract/q; touch out/.parts.extract/q/log; return 1;"
    assert once(tmp_path, SPLIT.format(4, queued)).returncode != 0

    result = once(tmp_path, SPLIT.format(2, "return 0;"))

    assert result.returncode == 0, result.stderr
    assert "JOB=1:2 " in (tmp_path / "log").read_text()


EACH = """
at_once={}
trap stop_others EXIT
long() {{ echo begun >> log; bash -c 'sleep 1; echo late >> log'; echo later >> log; }}
each long a b
"""


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_jobs_end_with_the_run_that_began_them(tmp_path, at_once, number):
    """What runs behind ignores Ctrl-C, and would work on for hours."""
    process = subprocess.Popen(
        ["bash", "-c", ONCE + EACH.format(at_once), "bash", str(RECIPE)],
        cwd=tmp_path,
        start_new_session=True,
        # Tests that a shell runs in its background ignore Ctrl-C, and what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    log = tmp_path / "log"
    while not log.exists() or log.read_text().count("begun") < at_once:
        time.sleep(0.05)
    # The keys of a terminal reach its foreground group, `kill` one process.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(timeout=30) != 0

    time.sleep(1.5)

    assert set(log.read_text().split()) == {"begun"}
