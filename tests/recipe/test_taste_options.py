"""Options that reach many stages of the recipe, and what surrounds its stages."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from fake_programs import write_script
from recipe_shell import RECIPE, ROOT, UTILS, bash, needs_espnet

BEST, ACCURATE = "valid.loss.best.pth", "valid.acc.best.pth"

pytestmark = needs_espnet


def dry(*args):
    """Return the commands of a dry run, one a line."""
    options = ("--dry_run", "true", "--at_once", "1")  # lines must not mix
    result = bash("run.sh", "--corpus", "mini_an4", *options, *args)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.replace("split_jobs ", "\nsplit_jobs ").splitlines()
    return [line for line in lines if " stage " not in line]


def with_word(lines, word):
    found = [line for line in lines if word in line]
    assert found, word
    return found


# --- corpus -----------------------------------------------------------------


def test_sets_of_your_own_do_not_run_under_the_settings_of_the_demo():
    sets = ("--train_set", "mine", "--dry_run", "true")

    alone = bash("run.sh", *sets)
    named = bash("run.sh", "--corpus", "kaldi_dir", *sets)

    assert alone.returncode == 2 and "--corpus kaldi_dir" in alone.stderr
    assert named.returncode == 0, named.stderr
    assert "mini_an4" not in named.stdout and "conf/train_taste.yaml" in named.stdout


def test_too_few_utterances_for_an_interval_are_refused_before_any_work():
    result = bash("run.sh", "--dry_run", "true", "--max_audio_utts", "1")

    assert result.returncode == 2 and not result.stdout
    assert "--max_audio_utts must be at least 2" in result.stderr


# --- language ---------------------------------------------------------------


def test_the_language_reaches_whoever_hears_or_reads():
    german = ("--language", "de", "--aligner", "whisper")
    others = ("--whisper", "openai/whisper-tiny", "--continuation_scores", "true")
    lines = dry(*german, *others, "--transcripts", "asr")

    tokenizers = with_word(lines, " tokenizer_train ")
    judges = with_word(lines, "--kind audio") + with_word(lines, "score_continuations")
    aligners = [line for line in lines if " align --aligner" in line]
    listeners = [line for line in lines if " transcribe --whisper" in line]
    assert len(tokenizers) == 5 and len(aligners) == len(listeners) == 3
    for line in (*tokenizers, *judges, *aligners, *listeners):
        assert line.count("--language de") == 1
    heard = [line for line in lines if "--language" in line]
    assert len(heard) == len(tokenizers + judges + aligners + listeners)


def test_the_defaults_of_language_and_judge_are_not_named():
    """Named, they would make finished steps of older runs look like others."""
    lines = "\n".join(dry("--continuation_scores", "true"))

    assert "--language" not in lines and "--spell_numbers" not in lines
    assert "check_whisper" not in lines


def test_the_judge_may_write_digits():
    lines = dry("--stage", "score_topline", "--spell_numbers", "false")

    for line in lines:
        assert ("--spell_numbers false" in line) == ("--kind audio" in line)
    wanted = ("--continuation_scores", "true", "--spell_numbers", "false")
    (score,) = with_word(dry(*wanted), "score_continuations")
    assert "--spell_numbers false" in score


# --- checkpoints ------------------------------------------------------------


def test_the_chosen_checkpoint_is_that_of_the_tokenizers():
    lines = "\n".join(dry("--inference_model", ACCURATE)).split()
    used = {w.removeprefix("exp/mini_an4/") for w in lines if w.endswith(".pth")}

    assert {w for w in used if w.endswith(ACCURATE)} == {ACCURATE} | {
        f"{name}/{ACCURATE}"
        for name in (
            *("text_only", "without_vq", "taste"),
            *("text_only_control", "without_vq_control"),
        )
    }
    others = {w for w in used if w.endswith(BEST)}
    assert others == {f"unit_autoencoder/{BEST}", f"slm/{BEST}"}


STAGES = """
set -euo pipefail
corpus=t; tag=; expdir=exp; dumpdir=dump; config_dir=conf; at_once=1; nj=1; ngpu=0
speaker_model=resemblyzer/ge2e
train_set=tr; valid_set=cv; test_sets=te; transcripts=corpus; dry_run=false
train_cmd=run.pl; cuda_cmd=run.pl; gpu_inference=false; python=echo; train_args=
encoder_states=true
language=en; spell_numbers=true; judge=Systran/faster-whisper-base
inference_model=valid.loss.best.pth; skip_stages=
taste_config=taste.yaml; slm_config=slm.yaml; whisper=openai/whisper-tiny.en
benchmark_sets=; benchmark_transcripts=asr; question_sets=
fail() { echo "fail: $*" >&2; exit 2; }
log() { echo "$*"; }
. "$1"/marks.sh
. "$1"/running.sh
"""


SOURCES = '. "$1"/stages.sh; . "$1"/scores.sh; . "$1"/benchmarks.sh'


@pytest.fixture
def experiment(tmp_path):
    """Run stages, with echo for Python, on an experiment folder without spoken LM."""
    (tmp_path / "conf").mkdir()
    for name in ("taste", "slm"):
        (tmp_path / "conf" / f"{name}.yaml").write_text("a: 1\n")
    for name in ("text_only", "without_vq", "taste"):
        add_training(tmp_path, name)

    def run(script):
        whole = STAGES + script.format(stages=SOURCES)
        return bash("-c", whole, "bash", str(RECIPE), cwd=tmp_path)

    return run


def add_training(folder, name):
    place = folder / "exp" / "t" / name
    place.mkdir(parents=True)
    for file in ("config.yaml", ".done", BEST):
        (place / file).write_text("x\n")


def test_the_chosen_checkpoint_is_noted_in_the_experiment_folder(tmp_path, experiment):
    (tmp_path / "exp" / "t" / "taste" / ACCURATE).touch()
    later = "launch() {{ :; }}\nonce() {{ :; }}\nstage_train_taste"

    result = experiment(f"inference_model={ACCURATE}\n{{stages}}\n{later}")

    assert result.returncode == 0, result.stderr
    note = tmp_path / "exp" / "t" / "taste" / "inference_model"
    assert note.read_text() == ACCURATE + "\n"


def test_a_tokenizer_that_kept_other_checkpoints_is_refused(experiment):
    result = experiment(f"inference_model={ACCURATE}\n{{stages}}\nstage_report")

    assert result.returncode == 2
    assert f"no exp/t/text_only/{ACCURATE}; choose --inference_model" in result.stderr
    assert BEST in result.stderr


# --- without spoken LM ------------------------------------------------------


def test_an_experiment_without_spoken_lm_is_reported_and_packed(tmp_path, experiment):
    result = experiment("{stages}\nstage_report; stage_pack")

    assert result.returncode == 0, result.stderr
    assert "--system taste=exp/t/taste" in result.stdout
    assert "slm" not in result.stdout
    assert (tmp_path / "exp" / "t" / ".done.pack_tokenizer").exists()

    add_training(tmp_path, "slm")
    result = experiment("{stages}\nstage_report; stage_pack")

    assert "--system slm=exp/t/slm" in result.stdout
    assert "conf/slm.yaml" in result.stdout
    assert "espnet_taste.bin.pack" in result.stdout  # again, now with it
    assert "--tokenizer_only" not in result.stdout


def test_a_spoken_lm_whose_training_was_stopped_is_left_out(tmp_path, experiment):
    """Config and checkpoints are there; only the recipe's mark is not."""
    add_training(tmp_path, "slm")
    (tmp_path / "exp" / "t" / "slm" / ".done").unlink()

    result = experiment("{stages}\nstage_report; stage_pack")

    assert result.returncode == 0 and "slm" not in result.stdout
    assert "--tokenizer_only" in result.stdout
    assert (tmp_path / "exp" / "t" / ".done.pack_tokenizer").exists()


def test_a_spoken_lm_that_is_not_to_be_scored_has_no_row(tmp_path, experiment):
    add_training(tmp_path, "slm")

    result = experiment("skip_stages='score_slm'\n{stages}\nstage_report")

    assert result.returncode == 0 and "slm" not in result.stdout


def test_test_utterances_that_were_trained_on_are_told(tmp_path, experiment):
    for name, keys in {"tr": "abc", "te": "bcd"}.items():
        place = tmp_path / "dump" / "aligned" / name
        place.mkdir(parents=True)
        (place / "text").write_text("".join(f"{key} word\n" for key in keys))

    result = experiment("{stages}\nstage_report")
    assert "--meta utterances of te that were trained on=2" in result.stdout

    (tmp_path / "dump" / "aligned" / "te" / "text").write_text("d word\n")
    assert "trained on" not in experiment("{stages}\nstage_report").stdout


# --- another Whisper --------------------------------------------------------


def test_trainings_are_checked_against_another_whisper_before_units_are_made():
    stages = ("--stage", "extract_features", "--stop_stage", "extract_features")
    skip = ("--skip_stages", "train_text_only_control train_without_vq_control")

    first, *_ = with_word(dry(*stages, "--whisper", "my/whisper"), "bin.")
    (fewer,) = with_word(dry(*stages, *skip, "--whisper", "a/b"), "check_whisper")

    assert "bin.check_whisper --whisper my/whisper --config" in first
    assert first.count("conf/debug/train_") == 5
    assert fewer.split("--config ")[1].split() == [
        f"conf/debug/train_{name}.yaml" for name in ("text_only", "without_vq", "taste")
    ]


# --- ESPnet's tree and cluster ----------------------------------------------


def test_links_follow_the_espnet_tree_that_is_named(tmp_path):
    trees = [tmp_path / name for name in ("first", "second")]
    for tree in trees:
        for tool in ("utils", "scripts", "pyscripts", "steps"):
            (tree / "egs2/TEMPLATE/asr1" / tool).mkdir(parents=True)
    work = tmp_path / "work"
    (work / "steps").mkdir(parents=True)  # somebody's own

    for tree in trees:
        source = f". {RECIPE}/path.sh"
        result = bash("-c", source, cwd=work, ESPNET_ROOT=str(tree))
        assert result.returncode == 0, result.stderr
        utils = (work / "utils").readlink()
        assert utils == tree / "egs2/TEMPLATE/asr1/utils"
    assert not (work / "steps").is_symlink()


def test_the_recipe_runs_where_it_is_linked_into_an_espnet_tree(tmp_path):
    template = tmp_path / "egs2" / "TEMPLATE" / "asr1"
    template.mkdir(parents=True)
    (template / "utils").symlink_to(UTILS)
    linked = bash(str(ROOT / "tools/link_recipe.sh"), str(tmp_path), "mini_an4")
    assert linked.returncode == 0, linked.stderr

    place = tmp_path / "egs2" / "mini_an4" / "taste1"
    result = bash("run.sh", "--dry_run", "true", cwd=place, ESPNET_ROOT=str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "bin.pack" in result.stdout
    assert (place / "utils").readlink() == Path("../../TEMPLATE/asr1/utils")  # kept


def test_a_recipe_of_espnet_prepares_the_folders_of_its_corpus(tmp_path):
    template = tmp_path / "egs2" / "TEMPLATE" / "asr1"
    template.mkdir(parents=True)
    (template / "utils").symlink_to(UTILS)
    link = (str(ROOT / "tools/link_recipe.sh"), str(tmp_path), "swbd")
    unknown = bash(*link)
    assert unknown.returncode == 1
    assert "egs2 nor one of: emilia kaldi_dir libri" in unknown.stderr
    (tmp_path / "egs2" / "swbd").mkdir()
    assert bash(*link).returncode == 0

    result = bash(
        "run.sh", "--dry_run", "true", "--stop_stage", "1", "--train_set", "tr",
        "--local_data_opts", "--set tr=../asr1/data/tr",
        cwd=tmp_path / "egs2" / "swbd" / "taste1", ESPNET_ROOT=str(tmp_path),
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert "local/data.sh --corpus kaldi_dir" in result.stdout
    assert "--set tr=../asr1/data/tr" in result.stdout


def test_an_experiment_that_cannot_be_packed_is_told_before_it_is_made(tmp_path):
    def run(*options):
        return bash("run.sh", "--dry_run", "true", "--expdir", str(tmp_path), *options)

    refused = run()
    assert refused.returncode == 2 and "stage 1:" not in refused.stdout
    assert f"stage pack: {tmp_path}/mini_an4 is, or leads, outside" in refused.stderr
    assert run("--skip_stages", "pack").returncode == 0


def test_several_nodes_need_a_cluster():
    def run(**env):
        options = ("--dry_run", "true", "--stop_stage", "1", "--num_nodes", "2")
        return bash("run.sh", *options, **env)

    refused = run(cmd_backend="local")
    assert refused.returncode == 2 and "set cmd_backend to that" in refused.stderr
    assert run(cmd_backend="slurm").returncode == 0


def test_only_launchers_that_espnet_has_are_offered():
    def choose(name):
        return bash("-c", ". ./cmd.sh && echo ${train_cmd}", cmd_backend=name)

    for name in ("local", "slurm", "sge", "pbs"):
        assert (UTILS / choose(name).stdout.strip()).is_file()
    refused = choose("ssh")
    assert refused.returncode != 0 and "local, slurm, sge or pbs" in refused.stderr


def test_srun_gives_a_training_the_cpus_that_were_asked_for():
    def cpus(**env):
        result = bash("-c", ". ./path.sh && echo ${SRUN_CPUS_PER_TASK-none}", **env)
        return result.stdout.strip()

    assert cpus() == "none"
    assert cpus(SLURM_CPUS_PER_TASK="4") == "4"
    assert cpus(SLURM_CPUS_PER_TASK="4", SRUN_CPUS_PER_TASK="2") == "2"


def test_a_training_on_one_node_has_a_cpu_a_gpu(tmp_path):
    """ESPnet's launcher asks for CPUs on several nodes only."""
    write_script(
        tmp_path / "bin" / "sbatch", '#!/bin/sh\necho "$@" >> called\nexit 1\n'
    )
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "q").mkdir()
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"

    subprocess.run(
        [shutil.which("perl"), UTILS / "slurm.pl", "--gpu", "4", "train.log", "true"],
        cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True,
    )  # fmt: skip

    call = (tmp_path / "called").read_text().split()
    assert {"--gres=gpu:4", "--cpus-per-task=4"} <= set(call)


OPTIONS = ("--name", "taste", "--gpu", "2", "--num_threads", "2", "--num_nodes", "3")


@pytest.mark.parametrize(
    ("launcher", "submit", "expected"),
    [
        (
            "slurm.pl",
            "sbatch",
            "--job-name=taste --gres=gpu:2 --cpus-per-task=2 --nodes=3 "
            "--ntasks-per-node=1 --export=ALL",
        ),
        ("queue.pl", "qsub", "-N taste -l gpu=2 -pe smp 2 -pe mpi 3 -V -cwd"),
        ("pbs.pl", "qsub", "-N taste -l ngpus=2 -l ncpus=2 -l nodes=3:ppn=1 -V"),
    ],
)
def test_launchers_find_what_they_read(tmp_path, launcher, submit, expected):
    """With a scheduler that notes how it is called, and refuses."""
    write_script(tmp_path / "bin" / submit, '#!/bin/sh\necho "$@" >> called\nexit 1\n')
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "log" / "q" / "sync").mkdir(parents=True)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    train = [shutil.which("perl"), UTILS / launcher, *OPTIONS, "log/train.log", "true"]
    jobs = [*train[:2], "JOB=1:2", "log/job.JOB", "true"]

    for command in (train, jobs):
        subprocess.run(
            command, cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True
        )

    train_call, jobs_call = (tmp_path / "called").read_text().splitlines()
    words = train_call.split()
    pairs = set(zip(words, words[1:]))
    wanted = expected.split()
    for position, word in enumerate(wanted):
        assert word in words
        if word in ("-N", "-l", "-pe"):
            assert (word, wanted[position + 1]) in pairs
    assert "gpu" not in jobs_call
