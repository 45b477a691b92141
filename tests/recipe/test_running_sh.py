"""How the recipe runs its steps: once, resumed or refused, and at once."""

import shutil

import pytest
from recipe_shell import UTILS, needs_espnet, once

pytestmark = needs_espnet


def test_a_finished_step_is_skipped_and_an_unfinished_one_repeated(tmp_path):
    step = 'once out/.done a b -- bash -c "echo ran >> log; exit {}"\n'
    assert once(tmp_path, step.format(1)).returncode == 1
    assert once(tmp_path, step.format(0) * 3).returncode == 0

    assert (tmp_path / "log").read_text() == "ran\nran\n"


def test_a_finished_step_is_skipped_where_nothing_may_be_written(tmp_path):
    step = 'once out/.done a b -- bash -c "echo ran >> log"\n'
    assert once(tmp_path, step).returncode == 0
    lock = tmp_path / "out" / ".lock.done"
    lock.unlink()
    lock.mkdir()  # root may write anywhere, but not into a folder

    result = once(tmp_path, step)

    assert result.returncode == 0, result.stderr
    assert once(tmp_path, step.replace("a b", "a c")).returncode != 0


@pytest.mark.parametrize("status", [65, 71])
def test_a_file_system_without_locks_is_told_and_used(tmp_path, status):
    flock = f"flock() {{ return {status}; }}\n"

    result = once(tmp_path, f"{flock}once out/.done a b -- touch ran\n")

    assert result.returncode == 0 and (tmp_path / "ran").exists()
    assert "out: files cannot be locked here; let no other run" in result.stdout


LOGS = {
    "log.1": "# run\n#\nextract: no such file: a.wav; mend it\n# Ended (code 1) at\n",
    "log.2": "error: ignored, all went well\n# Ended (code 0) at noon, elapsed 1\n",
    "log.3": "on a cluster\n# Finished at noon with status 0\n",
    "log.4": "on a cluster, too\n# Finished at noon with status 1\n",
    "log.5": "killed, so without an end",
    "log.6": "six\n# Ended (code 1) at\n",
    "log.7": "seven\n# Ended (code 1) at\n",
}


def test_what_failed_jobs_say_is_shown_whatever_the_words(tmp_path):
    for name, text in LOGS.items():
        (tmp_path / name).write_text(text)

    result = once(tmp_path, "show_error log.*; show_error log.2; show_error none")

    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        "--- log.1",
        "extract: no such file: a.wav; mend it",
        "--- log.4",
        "on a cluster, too",
        "--- log.5",
        "killed, so without an end",
        "--- and 2 more",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "once out/.done a c -- true",
        "echo x > conf.yaml; once out/.done a conf.yaml -- true",
        "echo new > up/.done; once out/.done a up/model.pth -- true",
    ],
)
def test_a_step_made_from_something_else_is_not_overwritten(tmp_path, change):
    (tmp_path / "up").mkdir()
    (tmp_path / "up/.done").write_text("old\n")
    (tmp_path / "conf.yaml").write_text("y\n")
    words = change.split("out/.done ")[1].split(" --")[0]
    first = words.replace("c", "b") if words == "a c" else words
    assert once(tmp_path, f"once out/.done {first} -- true").returncode == 0

    result = once(tmp_path, change)

    assert result.returncode == 2
    assert "out was made with what is marked '<'" in result.stderr


@pytest.mark.parametrize(
    ("other", "marker", "told"),
    [
        (
            "out/st/tokens/.done.encode",
            "out/.done.score_pairs",
            "out/.done.score_pairs",
        ),
        ("out/.done.audio", "out/.done.codes", "out/.done.codes"),
        ("out/.done.codes.part", "out/.done.codes", "out"),
        ("beside/.done.encode", "out/.done.codes", "out"),
        # All that is in the folder of a training was made with the model.
        ("out/eval/te/.done.audio", "out/.done", "out"),
    ],
)
def test_what_is_to_be_removed_is_no_other_steps_work(tmp_path, other, marker, told):
    step = f"once {other} x -- true; once {marker} {{}} -- true\n"
    assert once(tmp_path, step.format("a")).returncode == 0

    result = once(tmp_path, step.format("b"))

    assert result.returncode == 2
    assert f"fail: {told} was made with" in result.stderr
    assert "above; remove it to make it again" in result.stderr


@pytest.mark.parametrize(
    ("marker", "other", "message"),
    [
        ("", "true", "out was made with what is marked '<' above; remove it to make"),
        (
            "",
            "touch out/.done.extract_mel",
            "out/.done.extract was made with what is marked '<' above; remove it and "
            "out/.parts.extract to make",
        ),
        (
            "jobs_marker=marks/.done.te",
            "true",
            "marks was made with what is marked '<' above; remove it and "
            "out/.parts.extract to make",
        ),
    ],
)
def test_parts_of_jobs_are_removed_with_the_mark(tmp_path, marker, other, message):
    """They hold what was made, and jobs go on with it."""
    step = "split_jobs() {{ mkdir -p out/.parts.extract; }}\n"
    step += f"{marker}\njobs data out extract --b {{}}; {other}\n"
    assert once(tmp_path, step.format(1)).returncode == 0

    result = once(tmp_path, step.format(2))

    assert result.returncode == 2
    assert message in result.stderr


@pytest.mark.parametrize("table", ["wav.scp", "segments", "text", "utt2spk"])
def test_formatted_audio_is_known_by_the_tables_it_was_made_of(tmp_path, table):
    """Corpora share names of sets, and users edit their tables."""
    step = "once dump/raw/tr/.done.format_audio data/tr --min_s 0.1 -- true\n"
    (tmp_path / "data/tr").mkdir(parents=True)
    (tmp_path / "data/tr/wav.scp").write_text("a a.wav\n")
    assert once(tmp_path, step * 2).returncode == 0

    (tmp_path / "data/tr" / table).write_text("a other\n")
    result = once(tmp_path, step)

    assert result.returncode == 2
    assert f"> holds {table} " in result.stderr
    assert "choose another --dumpdir and --tag" in result.stderr
    assert once(tmp_path, step.replace("dump", "dump2")).returncode == 0


def test_what_an_older_version_finished_stays_finished(tmp_path):
    step = "once out/.done data/tr a -- false"
    (tmp_path / "data/tr").mkdir(parents=True)
    (tmp_path / "data/tr/wav.scp").write_text("a a.wav\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.done").write_text("data/tr\nmade by 4294967295 0\na\n")

    assert once(tmp_path, step).returncode == 0
    assert once(tmp_path, step.replace(" a ", " b ")).returncode == 2


def test_a_corpus_prepared_otherwise_needs_folders_of_its_own(tmp_path):
    script = '. "$1"/stages.sh; mkdir -p local; local_data_opts="--split {}"\n'
    script += "echo touch prepared > local/data.sh; chmod +x local/data.sh\n"
    assert once(tmp_path, script.format("/one") + "stage_prepare_data").returncode == 0

    result = once(tmp_path, script.format("/two") + "stage_prepare_data")

    assert result.returncode == 2
    assert "data/.done.c was made with" in result.stderr  # not all of data/
    assert "choose another --datadir, --dumpdir and --tag" in result.stderr
    script = script.format("/two") + "datadir=data2; stage_prepare_data"
    assert once(tmp_path, script).returncode == 0


FAKE_PYTHON = """#!/usr/bin/env bash
# Splits into one job; jobs and trainings leave half of their work and are killed.
while [ "$1" != -m ]; do shift; done
module=$2
while [ "$1" != --output_dir ]; do shift; done
mkdir -p "$2"
case ${module} in
    *split_keys) echo 1 > "$2/num_jobs" ;;
    *launch) touch "$2/${leaves:-checkpoint.pth}"; exit 1 ;;
    *merge_jobs) ;;
    *) [ -n "${leaves-x}" ] && touch "$2/chunk1.ark"; exit 1 ;;
esac
"""
JOBS = 'train_cmd=here; here() { shift 2; "${@//JOB/1}"; }; jobs data out extract --b '
TRAINING = "config_dir=.; sets() { :; }; train taste tokenizer_train c.yaml sets --b "


@pytest.mark.parametrize(
    ("step", "half", "nothing"),
    [(JOBS, "out/.parts.extract", ""), (TRAINING, "exp/taste", "train.log")],
)
def test_half_made_work_is_gone_on_with_only_by_what_began_it(
    tmp_path, step, half, nothing
):
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    options = "python=$PWD/python; nj=1; ngpu=0; num_nodes=1; inference_model=x\n"
    (tmp_path / "c.yaml").write_text("max_epoch: 1\n")

    def refusal(value, leaves=None):
        found = "" if leaves is None else f"export leaves={leaves}\n"
        result = once(tmp_path, options + found + step + value)
        assert result.returncode != 0
        return result.stderr if "begun" in result.stderr else None

    # What died before it made anything may be begun otherwise.
    assert refusal("9", nothing) is None
    assert refusal("8") is None and refusal("8") is None
    told = refusal("9")
    assert f"{half} was begun with what is marked '<' above; remove it" in told
    assert "< 8" in told and "> 9" in told

    shutil.rmtree(tmp_path / half)
    assert refusal("9") is None


@pytest.mark.parametrize(
    ("keys", "change", "another"),
    [
        ("", "# note\nencoder_conf:\n  layer: 1  # shallow\n\nmax_epoch: 6\n", False),
        ("", "encoder_conf:\n  layer: 1\nmax_epoch: 7\n", True),
        ("encoder_conf", "encoder_conf:\n  layer: 1\nmax_epoch: 7\n", False),
        ("encoder_conf", "encoder_conf:\n  layer: 2\nmax_epoch: 6\n", True),
        ("encoder_conf", "encoder_conf:\n- layer: 1\nmax_epoch: 6\n", True),
        ("", "encoder_conf:\n  layer: 1#2\nmax_epoch: 6\n", True),
    ],
)
def test_only_settings_that_a_step_reads_make_it_another(
    tmp_path, keys, change, another
):
    conf = tmp_path / "conf.yaml"
    step = f"yaml_keys='{keys}'; once out/.done conf.yaml -- true"
    conf.write_text("encoder_conf:\n  layer: 1\nmax_epoch: 6\n")
    assert once(tmp_path, step).returncode == 0

    conf.write_text(change)

    assert once(tmp_path, step).returncode == (2 if another else 0)


@pytest.mark.parametrize(("few", "many", "chosen"), [(7, 9, 9), (12, 5, 12)])
def test_the_few_that_are_judged_are_among_the_many(tmp_path, few, many, chosen):
    """The original's transcripts, made for the many, serve every system."""
    aligned = tmp_path / "dump" / "aligned" / "te"
    aligned.mkdir(parents=True)
    lines = [f"utt{number:02d} {number}.wav\n" for number in range(20)]
    (aligned / "wav.scp").write_text("".join(lines))
    (tmp_path / "utils").symlink_to(UTILS)
    options = f"max_audio_utts={few}; max_topline_utts={many}\n"

    stages = '. "$1"/stages.sh; . "$1"/scores.sh\n'
    result = once(tmp_path, options + stages + "choose_audio_keys te")

    assert result.returncode == 0, result.stderr
    all_rows, topline = (
        (tmp_path / "exp" / "t" / "audio_keys" / name).read_text().split()
        for name in ("te", "te.topline")
    )
    assert (len(all_rows), len(topline)) == (few, chosen)
    assert set(all_rows) <= set(topline)
    assert topline[-1] > "utt15"  # spread over the set


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_each_handles_every_word_and_reports_a_failure(tmp_path, at_once):
    step = f"at_once={at_once}\nstep() {{ echo $1 >> log; [ $1 != bad ]; }}\n"

    good = once(tmp_path, step + "each step a b c")
    bad = once(tmp_path, step + "each step bad d e f g h\necho not reached")

    assert good.returncode == 0 and bad.returncode != 0
    assert "not reached" not in bad.stdout
    assert {"a", "b", "c"} <= set((tmp_path / "log").read_text().split())
    assert "h" not in (tmp_path / "log").read_text().split()


def test_a_step_waits_for_another_run_that_works_on_it(tmp_path):
    """A killed run may have left its training running."""
    step = 'once out/.done a -- bash -c "sleep 1; echo ran >> log"\n'

    result = once(tmp_path, f"({step})& sleep 0.4\n{step}wait")

    assert result.returncode == 0, result.stderr
    assert "waiting for another run" in result.stdout
    assert (tmp_path / "log").read_text() == "ran\n"


SUBMITTED = {  # what the launcher leaves; the job; how it is asked for
    "slurm": ("Submitted batch job 4711", "4711", "--noheader --jobs 4711"),
    "sge": (
        'Your job-array 4711.1-64:1 ("log.sh") has been submitted',
        "4711",
        "-j 4711",
    ),
    "pbs": ("4711[].pbsserver", "4711[].pbsserver", "-t 4711[].pbsserver"),
}


@pytest.mark.parametrize(
    ("step", "made"), [(JOBS, "out/.parts.extract"), (TRAINING, "exp/taste")]
)
@pytest.mark.parametrize("backend", SUBMITTED)
def test_what_a_lost_run_submitted_is_waited_for(tmp_path, backend, step, made):
    """A launcher that a hang-up ends leaves its jobs in the queue."""
    (tmp_path / "c.yaml").write_text("max_epoch: 1\n")
    (tmp_path / made / "q").mkdir(parents=True)
    left, job, question = SUBMITTED[backend]
    (tmp_path / made / "q" / "log").write_text(f"note 1.5\n2.5\n{left}\n")
    lines = f"""
cmd_backend={backend}; python=ran; nj=1; ngpu=0; num_nodes=1; polls=0
sleep() {{ polls=$((polls + 1)); }}
ran() {{ echo 1 > {made}/num_jobs; echo "after ${{polls}}" > log; }}
squeue() {{ ! qstat "$@" || echo 4711 R; }}
qstat() {{ [ "$*" = "{question}" ] && [ "${{polls}}" -lt 2 ]; }}
"""

    result = once(tmp_path, lines + step + "1")

    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"waiting for job {job}, which an earlier run sub") == 1
    assert result.stdout.count("waiting for") == 1
    assert (tmp_path / "log").read_text() == "after 2\n"


# As run.pl does, whose jobs are lines for another bash.
RUN_PL = """
run.pl() { local n last=${3#JOB=1:}; shift 4
    for ((n = 1; n <= last; n++)); do bash -c "${*//JOB/${n}}"; done; }
job_cmd="run.pl --gpu 1"; ngpu={}
jobs data out extract --device {}
"""


@pytest.mark.parametrize(
    ("ngpu", "device", "devices"),
    [
        (2, "cuda", ["cuda:0", "cuda:1", "cuda:0"]),
        (0, "cuda", ["cuda:0"] * 3),
        (2, "cpu", ["cpu"] * 3),
    ],
)
def test_jobs_of_one_machine_share_its_gpus(tmp_path, ngpu, device, devices):
    python = tmp_path / "python"
    python.write_text("""#!/usr/bin/env bash
case $2 in
    *split_keys) while [ "$1" != --output_dir ]; do shift; done
        mkdir -p "$2"; echo 3 > "$2/num_jobs" ;;
    *extract) echo "${@: -1}" >> used ;;
esac
""")
    python.chmod(0o755)
    script = RUN_PL.replace("={}", f"={ngpu}").replace("device {}", f"device {device}")

    result = once(tmp_path, "python=$PWD/python; nj=3\n" + script)

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "used").read_text().split() == devices
