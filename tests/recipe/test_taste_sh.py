"""The recipe driver: order, range, refusals and options, without real stages."""

import subprocess

import pytest
from recipe_shell import RECIPE, ROOT, bash, dry, needs_espnet
from shell_checker import shellcheck

from espnet_taste.bin.make_pairs import KINDS

CONF = ("--config_dir", "conf")

pytestmark = needs_espnet


def stages_of(result):
    return [li.split()[3] for li in result.stdout.splitlines() if " stage " in li]


def test_a_stage_range_runs_those_stages_in_order():
    result = dry("--stage", "train_text_only", "--stop_stage", "10")

    assert result.returncode == 0, result.stderr
    expected = ["train_text_only", "train_text_only_control", "train_without_vq"]
    assert stages_of(result) == expected


def test_help_needs_no_set_up_and_has_every_option(monkeypatch, tmp_path):
    monkeypatch.setenv("ESPNET_ROOT", str(tmp_path))

    result = bash("run.sh", "--stage", "3", "--help")

    assert result.returncode == 0 and not result.stderr, result.stderr
    for text in ("mini_an4.opts", "train_text_only", "stage=1  ", "max_audio_utts=50"):
        assert text in result.stdout


def test_stages_can_be_skipped_by_name():
    result = dry("--stage", "15", "--skip_stages", "score_tokenizers score_slm report")

    expected = ["reconstruct", "continue_speech", "score_continuations"]
    expected += ["score_pairs", "score_answers", "pack"]
    assert stages_of(result) == expected


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
    *_, tokenizers, continued, heard, pairs, asked, slm = result.stdout.split(" stage ")
    for kind in ("units", "audio", "codes"):
        assert f"--kind {kind} --system taste" in tokenizers
    assert "--kind codes --system units_only" in tokenizers
    assert "--kind slm --system slm --set test " in slm
    assert "--kind" not in continued + heard + pairs + asked


@pytest.mark.parametrize("at_once", [1, 2])
def test_jobs_and_scores_give_way_to_trainings_that_run_beside_them(at_once):
    stage = ("--stage", "score_slm", "--stop_stage", "score_slm")

    out = dry("--at_once", str(at_once), *stage).stdout

    (score,) = [line for line in out.splitlines() if "bin.score --kind slm" in line]
    assert ("slm.log nice -n 10 python3 -m" in score) == (at_once > 1)
    assert ("slm.log python3 -m" in score) == (at_once == 1)


@pytest.mark.parametrize(
    ("stage", "start"),
    [
        ("text_only", None),
        ("without_vq", "text_only/valid.loss.best.pth"),
        ("taste", "quantizer_start/model.pth"),
        ("text_only_control", "text_only/valid.loss.best.pth"),
        ("without_vq_control", "without_vq/valid.loss.best.pth"),
    ],
)
def test_each_training_starts_from_the_one_before(stage, start):
    stage = f"train_{stage}"
    out = dry("--stage", stage, "--stop_stage", stage, "--at_once", "1").stdout

    words = out[out.index("tokenizer_train") :].split()
    found = words[words.index("--init_from") + 1] if "--init_from" in words else None
    assert found == (start and f"exp/mini_an4/{start}")
    if stage == "train_taste":
        assert "--model_file exp/mini_an4/without_vq/valid.loss.best.pth" in out


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


def test_units_without_a_decoder_are_not_given_a_polish_alone():
    """The default training of the vocoder goes on from the decoder of learned units."""
    units = ("--units_config", "units.yaml", *CONF, "--stage", "train_vocoder")
    vocoder = ("--vocoder_config", "kmeans/train_unit_to_mel.yaml")

    alone = dry(*units)

    assert alone.returncode == 2 and "without a decoder" in alone.stderr
    assert "add --vocoder_config kmeans/train_unit_to_mel.yaml" in alone.stderr
    assert dry(*units, *vocoder).returncode == 0
    assert dry(*CONF, "--stage", "train_vocoder").returncode == 0


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


def test_the_end_says_which_files_list_the_audio():
    """Jobs leave the audio itself in hidden folders."""
    out = dry("--stage", "pack").stdout

    (line,) = [line for line in out.splitlines() if line.startswith("audio ")]
    assert line.split()[-2:] == [
        "exp/mini_an4/*/audio/<set>/wav.scp,",
        "exp/mini_an4/slm/continuations/<set>/wav.scp",
    ]


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
        (["--nj"], "option --nj has no value"),
        (["--nj=2"], "must be of the form --name value"),
        (["--nj", "0"], "--nj is a whole number from 1 on, not '0'"),
        (["--ngpu", "all"], "--ngpu is a whole number from 0 on, not 'all'"),
        (["--max_topline_utts", "x"], "--max_topline_utts is a whole number from 2 on"),
        (["--max_excluded", "20"], "--max_excluded is a share from 0 to 1, not '20'"),
        (["--aligner", "mfa"], "--aligner is pocketsphinx, whisper, ctc or existing"),
        (["--pair_kinds", "speaker_swich"], "--pair_kinds: no 'speaker_swich'"),
        (["--train_set", "a b"], "--train_set is one folder in data, not 'a b'"),
        (["--test_sets", "a b a"], "--test_sets names a twice"),
        (["--tag", "my run"], "--tag 'my run': ESPnet's launchers"),
        (["--stage", "6", "--stop_stage", "5"], "no stage is left from --stage 6"),
        (["--stage", "24"], "no stage is left from --stage 24"),
        (["--stop_stage", "1", "--skip_stages", "prepare_data"], "no stage is left"),
        (["--slm_config", "no.yaml"], "no conf/debug/no.yaml, which stage train_slm"),
        (["--decode_config", "no.yaml"], "which stage score_topline reads; see --con"),
    ],
)
def test_wrong_options_are_named(args, message):
    result = dry(*args)

    assert result.returncode != 0
    assert message in result.stderr + result.stdout


def test_every_kind_of_pairs_is_known_and_every_share_may_be_left_out():
    for share in ("0", "1", "1.0", "0.25", ".5"):
        result = dry("--stage", "pack", "--max_excluded", share)
        assert result.returncode == 0, result.stderr
    assert dry("--stage", "pack", "--pair_kinds", " ".join(KINDS)).returncode == 0


def test_only_stages_that_run_need_their_files():
    result = dry("--stop_stage", "train_units", "--slm_config", "no.yaml")

    assert result.returncode == 0, result.stderr


def test_what_is_not_there_is_named_before_the_first_stage_works(tmp_path):
    sets = (
        "--corpus",
        "kaldi_dir",
        "--datadir",
        str(tmp_path),
        "--benchmark_sets",
        "x",
    )
    for name in ("train", "valid"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").touch()

    pairs = bash("run.sh", *sets, "--stage", "format_audio")
    folder = bash("run.sh", *sets, "--stage", "2", "--stop_stage", "2")

    assert pairs.returncode == folder.returncode == 2
    assert f"no {tmp_path}/x/pairs; local/data.sh --corpus pairs" in pairs.stderr
    assert f"no {tmp_path}/test/wav.scp; prepare it, or name" in folder.stderr
    assert "stage 2" not in pairs.stdout


@pytest.mark.parametrize("before", [[], ["--stop_stage", "1"]])
def test_an_unknown_corpus_lists_the_known_ones(before):
    result = bash("run.sh", *before, "--corpus", "nowhere")

    assert result.returncode == 2
    assert "mini_an4.opts" in result.stderr


def test_data_can_be_prepared_elsewhere():
    out = dry("--stop_stage", "format_audio", "--datadir", "other").stdout

    assert "local/data.sh --corpus mini_an4 --data_root other" in out
    assert "split_jobs other/test dump/raw/test format_audio" in out


def test_shellcheck():
    scripts = [str(path) for path in RECIPE.glob("*.sh")]
    result = subprocess.run(
        [shellcheck(), "-x", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
