"""The recipe driver: order, range, refusals and resumption, without real stages."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from shell_checker import shellcheck

RECIPE = Path(__file__).parents[2] / "egs2" / "taste"
ROOT = RECIPE.parents[1]
ESPNET = Path(os.environ.get("ESPNET_ROOT", ROOT / ".espnet"))

CONF = ("--config_dir", "conf")

pytestmark = pytest.mark.skipif(
    not (ESPNET / "egs2/TEMPLATE/asr1/utils/parse_options.sh").exists(),
    reason="no ESPnet tree; run tools/get_espnet.sh or set ESPNET_ROOT",
)


def bash(*args, cwd=RECIPE):
    return subprocess.run(["bash", *args], cwd=cwd, capture_output=True, text=True)


def dry(*args):
    return bash("run.sh", "--corpus", "mini_an4", "--dry_run", "true", *args)


def stages_of(result):
    return [li.split()[3] for li in result.stdout.splitlines() if " stage " in li]


def test_a_stage_range_runs_those_stages_in_order():
    result = dry("--stage", "train_text_only", "--stop_stage", "10")

    assert result.returncode == 0, result.stderr
    expected = ["train_text_only", "train_text_only_control", "train_without_vq"]
    assert stages_of(result) == expected


def test_stages_can_be_skipped_by_name():
    result = dry("--stage", "15", "--skip_stages", "score_tokenizers score_slm report")

    expected = ["reconstruct", "continue_speech", "score_continuations"]
    expected += ["score_pairs", "pack"]
    assert stages_of(result) == expected


def commands_of(stage, *options):
    """Return the words of the commands of one stage, name first."""
    out = dry("--stage", stage, "--stop_stage", stage, *options).stdout
    return [
        line.split("espnet_taste.bin.")[1].split()
        for line in out.splitlines()
        if "espnet_taste.bin." in line
    ]


def test_pairs_are_made_encoded_scored_and_counted_where_they_are_wanted():
    kinds = ("--pair_kinds", "speaker_switch topic_switch", "--num_pairs", "7")

    commands = commands_of("score_pairs", *kinds)

    names = [words[0] for words in commands]
    assert names == ["make_pairs", "encode", "likelihood", "score_pairs"]
    made = " ".join(commands[0])
    assert "--kinds speaker_switch topic_switch --num_pairs 7" in made
    assert commands_of("score_pairs") == []


def test_published_benchmarks_are_scored_at_once_by_the_words_of_one_source():
    sets = ("--benchmark_sets", "sSC tSC", "--at_once", "1")  # in this order

    commands = commands_of("score_pairs", *sets, "--whisper", "w")

    names = [words[0] for words in commands]
    assert names == [*["encode", "likelihood"] * 2, "score_pairs"]
    assert "--data_dir data/sSC" in " ".join(commands[0])
    assert "--transcripts asr" in " ".join(commands[0])
    assert "--transcripts w " in " ".join(commands[1])
    assert "--pairs data/sSC/pairs data/tSC/pairs" in " ".join(commands[-1])
    given = commands_of("score_pairs", *sets, "--benchmark_transcripts", "given")
    assert "--transcripts auto" in " ".join(given[0])
    assert "--transcripts given" in " ".join(given[1])
    result = dry(*sets, "--benchmark_transcripts", "mine")
    assert "--benchmark_transcripts is asr or given" in result.stderr


def test_continuations_are_scored_where_that_is_wanted():
    (score,) = commands_of(
        "score_continuations", "--continuation_scores", "true",
        "--continuation_opts", "--mos dnsmos",
    )  # fmt: skip

    folder = "exp/mini_an4/slm/continuations/test"
    text = " ".join(score)
    assert f"--wav_scp {folder}/wav.scp --prompts {folder}/report.jsonl" in text
    assert "--mos dnsmos" in text
    assert commands_of("score_continuations") == []


def test_the_topline_is_judged_before_any_tokenizer_is_trained():
    out = dry("--stage", "score_topline", "--stop_stage", "train_text_only").stdout

    first = out[: out.index("stage 8: train_text_only")]
    for system in ("original", "units_only"):
        assert f"--kind audio --system {system}" in first
    assert "--key_file exp/mini_an4/audio_keys/test.topline" in first
    assert "--units_only" in first


def test_tokenizers_are_judged_before_the_spoken_lm_has_to_be_ready():
    result = dry("--stage", "train_slm", "--stop_stage", "score_slm")

    stages = stages_of(result)
    assert stages.index("score_tokenizers") < stages.index("continue_speech")
    *_, tokenizers, continued, heard, pairs, slm = result.stdout.split(" stage ")
    for kind in ("units", "audio", "codes"):
        assert f"--kind {kind} --system taste" in tokenizers
    assert "--kind codes --system units_only" in tokenizers
    assert "--kind slm --system slm --set test " in slm
    assert "--kind" not in continued + heard + pairs


@pytest.mark.parametrize("at_once", [1, 2])
def test_jobs_and_scores_give_way_to_trainings_that_run_beside_them(at_once):
    stage = ("--stage", "score_slm", "--stop_stage", "score_slm")

    out = dry("--at_once", str(at_once), *stage).stdout

    (score,) = [line for line in out.splitlines() if "bin.score --kind slm" in line]
    assert score.startswith("nice -n 10 python3" if at_once > 1 else "python3")


def test_each_training_starts_from_the_one_before():
    out = dry("--stage", "train_taste", "--stop_stage", "train_taste").stdout

    assert "--model_file exp/mini_an4/without_vq/valid.loss.best.pth" in out
    assert "--init_from exp/mini_an4/quantizer_start/model.pth" in out


def test_a_speaker_encoder_that_is_no_default_is_recorded_and_packed():
    stages = ("--stage", "train_taste", "--stop_stage", "train_taste")
    out = dry(*stages, "--speaker_model", "downloads/cosyvoice").stdout

    record = "bin.record_speaker --model downloads/cosyvoice --output_dir exp/mini_an4"
    assert f"{record}/speaker" in out
    assert "record_speaker" not in dry(*stages).stdout


def test_released_units_and_vocoder_are_chosen_in_yaml():
    released = dry(
        *("--stage", "extract_features", "--stop_stage", "train_vocoder"),
        *("--units_config", "released/units.yaml", *CONF),
        *("--vocoder_config", "released/vocoder.yaml"),
        *("--speaker_model", "downloads/cosyvoice"),
    )
    ours = dry("--stage", "extract_features", "--stop_stage", "train_vocoder")

    assert released.returncode == 0, released.stderr
    assert "bin.train_units --config conf/released/units.yaml" in released.stdout
    assert "bin.install_vocoder --config conf/released/vocoder.yaml" in released.stdout
    assert "--model downloads/cosyvoice" in released.stdout
    assert "unit_to_mel_train" not in released.stdout
    assert "install_vocoder" not in ours.stdout and "--model dow" not in ours.stdout
    assert "unit_to_mel_train" in ours.stdout


def test_units_of_what_they_were_learned_from_are_made_of_the_kept_states():
    stage = ("--stage", "train_units", "--stop_stage", "train_units")

    def steps(*options):
        out = dry(*stage, *options).stdout.replace("split_jobs", "\nsplit_jobs")
        lines = [line for line in out.splitlines() if " extract_units " in line]
        return {line.split()[1].split("/")[-1]: line for line in lines}

    learned, clustered = steps(), steps("--units_config", "units.yaml", *CONF)

    kept = "--states_scp dump/features/train_dev/unit_states/encoder_states.scp"
    assert kept in learned["train_dev"]
    assert "--states_scp" in learned["train_nodev"]
    assert "--states_scp" not in learned["test"] + "".join(clustered.values())
    assert len(clustered) == len(learned) == 3


def test_transcripts_are_made_between_formatting_and_alignment():
    made = dry("--stage", "2", "--stop_stage", "3", "--transcripts", "asr").stdout
    steps = [line.split()[1:4] for line in made.splitlines() if "split_jobs" in line]

    assert made.count("--need_text false") == 3
    assert ["dump/raw/test", "dump/transcribed/test", "transcribe"] in steps
    assert ["dump/transcribed/test", "dump/aligned/test", "align"] in steps


def test_transcripts_of_the_corpus_are_taken_as_they_are():
    out = dry("--stage", "2", "--stop_stage", "3").stdout

    assert out.count("--need_text true") == 3
    assert "transcribe" not in out


def test_the_resume_hint_names_its_own_stage():
    out = dry("--stage", "13", "--stop_stage", "13").stdout

    assert "stage 13: extract_codes" in out
    assert out.splitlines()[0].endswith("--stage 13)")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stage", "trian_slm"], "no stage 'trian_slm'"),
        (["--train_sets", "x"], "--train_sets"),
        (["--transcripts", "maybe"], "--transcripts is corpus or asr, not 'maybe'"),
        (["--skip_stages", "report trian_slm"], "--skip_stages: no stage 'trian_slm'"),
        (["--skip_stages", "14"], "--skip_stages: no stage '14'"),
        (["--language", "de"], "PocketSphinx knows English only; choose --aligner"),
        (["--language", "de", "--aligner", "ctc"], "choose a multilingual one"),
        (["stray"], "unexpected argument 'stray'"),
    ],
)
def test_wrong_options_are_named(args, message):
    result = dry(*args)

    assert result.returncode != 0
    assert message in result.stderr + result.stdout


@pytest.mark.parametrize("before", [[], ["--stop_stage", "1"]])
def test_an_unknown_corpus_lists_the_known_ones(before):
    result = bash("run.sh", *before, "--corpus", "nowhere")

    assert result.returncode == 2
    assert "mini_an4.opts" in result.stderr


ONCE = """
set -euo pipefail
expdir=exp; tag=t; corpus=c; datadir=data; dumpdir=dump; at_once=1
train_set=tr; valid_set=cv; test_sets=te
train_cmd=run.pl; cuda_cmd=run.pl; gpu_inference=false; dry_run=false
language=en; spell_numbers=true; inference_model=valid.loss.best.pth
fail() { echo "fail: $*" >&2; exit 2; }
log() { echo "$*"; }
exp=exp
. "$1"/running.sh
"""


def once(tmp_path, script):
    return bash("-c", ONCE + script, "bash", str(RECIPE), cwd=tmp_path)


def test_a_finished_step_is_skipped_and_an_unfinished_one_repeated(tmp_path):
    step = 'once out/.done a b -- bash -c "echo ran >> log; exit {}"\n'
    assert once(tmp_path, step.format(1)).returncode == 1
    assert once(tmp_path, step.format(0) * 3).returncode == 0

    assert (tmp_path / "log").read_text() == "ran\nran\n"


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


def test_data_can_be_prepared_elsewhere():
    out = dry("--stop_stage", "format_audio", "--datadir", "other").stdout

    assert "local/data.sh --corpus mini_an4 --data_root other" in out
    assert "split_jobs other/test dump/raw/test format_audio" in out


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
JOBS = 'job_cmd=here; here() { shift 2; "${@//JOB/1}"; }; jobs data out extract --b '
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


@pytest.mark.parametrize(("few", "many", "chosen"), [(7, 9, 9), (12, 5, 12)])
def test_the_few_that_are_judged_are_among_the_many(tmp_path, few, many, chosen):
    """The original's transcripts, made for the many, serve every system."""
    aligned = tmp_path / "dump" / "aligned" / "te"
    aligned.mkdir(parents=True)
    lines = [f"utt{number:02d} {number}.wav\n" for number in range(20)]
    (aligned / "wav.scp").write_text("".join(lines))
    (tmp_path / "utils").symlink_to(ESPNET / "egs2/TEMPLATE/asr1/utils")
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


ASIDE = """
at_once={}
trap stop_asides EXIT
slow() {{ sleep 0.5; echo from >> log; sleep 0.3; echo to >> log; }}
aside slow
aside slow
echo main >> log
"""


@pytest.mark.parametrize(
    ("at_once", "order"), [(1, "from to from to main"), (2, "main from to from to")]
)
def test_what_runs_aside_runs_beside_the_stages_in_turn(tmp_path, at_once, order):
    result = once(tmp_path, ASIDE.format(at_once) + "join_asides")

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "log").read_text().split() == order.split()


def test_a_failure_aside_is_reported_where_it_is_awaited(tmp_path):
    result = once(tmp_path, "at_once=2\naside false\necho on\njoin_asides\necho not")

    assert result.returncode == 2 and result.stdout == "on\n"
    assert "what ran beside the stages has failed" in result.stderr


def test_what_runs_aside_ends_with_the_run(tmp_path):
    result = once(tmp_path, ASIDE.format(2) + "false")
    time.sleep(1.2)

    assert result.returncode == 1
    assert (tmp_path / "log").read_text() == "main\n"


def test_a_step_waits_for_another_run_that_works_on_it(tmp_path):
    """A killed run may have left its training running."""
    step = 'once out/.done a -- bash -c "sleep 1; echo ran >> log"\n'

    result = once(tmp_path, f"({step})& sleep 0.4\n{step}wait")

    assert result.returncode == 0, result.stderr
    assert "waiting for another run" in result.stdout
    assert (tmp_path / "log").read_text() == "ran\n"


def test_shellcheck():
    scripts = [str(path) for path in RECIPE.glob("*.sh")]
    result = subprocess.run(
        [shellcheck(), "-x", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
