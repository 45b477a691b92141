"""Steps that score are known by what decides them: tables, language, numbers."""

import pytest
from recipe_shell import needs_espnet, once

pytestmark = needs_espnet

# Every command succeeds at once: what counts is which steps are taken for finished.
STAGES = """
python=true; speaker_model=s; device=cpu; max_excluded=0; whisper=w; exp=exp
. "$1"/stages.sh; . "$1"/scores.sh; . "$1"/benchmarks.sh
exp=exp
"""
BENCHMARKS = 'benchmark_sets="st"; benchmark_transcripts=asr; score_benchmarks\n'
PAIRS = "pair_kinds=gender_switch; num_pairs=1; pair_opts=; score_pairs_of te\n"
CONTINUATIONS = "continuation_opts=; score_continuations_of te\n"


@pytest.fixture
def run(tmp_path):
    """Run lines of shell behind those that define the stages."""
    for name in ("wav.scp", "utt2spk", "pairs"):
        write(tmp_path / "data" / "st" / name, f"{name}\n")
    return lambda script, before="": once(tmp_path, before + STAGES + script)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("table", ["pairs", "moments", "text_before", "text_after"])
@pytest.mark.parametrize("before", ["old\n", None])
def test_benchmarks_are_known_by_their_tables(tmp_path, run, table, before):
    path = tmp_path / "data" / "st" / table
    path.unlink(missing_ok=True)
    if before is not None:
        write(path, before)
    result = run(BENCHMARKS * 2)
    assert result.returncode == 0, result.stderr

    write(path, "mended\n")
    result = run(BENCHMARKS)

    assert result.returncode != 0
    assert f"> holds data/st/{table} " in result.stderr
    step = "/.done.score_pairs" if table == "pairs" else "/st/likelihood"
    assert f"exp/slm/benchmarks{step} was made with" in result.stderr


def test_benchmarks_that_an_older_version_finished_stay_finished(tmp_path, run):
    write(tmp_path / "data" / "st" / "moments", "a 1\n")
    folder = tmp_path / "exp" / "slm" / "benchmarks"
    for name in ("st/likelihood/.done.likelihood", ".done.score_pairs"):
        (folder / ".done.score_pairs").unlink(missing_ok=True)  # follows the other
        assert run(BENCHMARKS).returncode == 0
        lines = (folder / name).read_text().splitlines(keepends=True)
        older = [line for line in lines if not line.startswith("holds data/")]
        assert len(older) < len(lines)
        (folder / name).write_text("".join(older))

    result = run(BENCHMARKS)

    assert result.returncode == 0, result.stderr
    write(tmp_path / "data" / "st" / "wav.scp", "mended\n")
    assert run(BENCHMARKS).returncode != 0


def test_another_set_of_benchmarks_leaves_what_is_finished_of_the_first(tmp_path, run):
    write(tmp_path / "data" / "more" / "wav.scp", "a a.wav\n")
    assert run(BENCHMARKS).returncode == 0

    result = run(BENCHMARKS.replace("st", "st more", 1))

    assert result.returncode == 2
    assert "exp/slm/benchmarks/.done.score_pairs was made with" in result.stderr
    (tmp_path / "exp/slm/benchmarks/.done.score_pairs").unlink()
    assert run(BENCHMARKS.replace("st", "st more", 1)).returncode == 0


def test_pairs_of_genders_are_known_by_the_genders(tmp_path, run):
    genders = tmp_path / "data" / "te" / "spk2gender"
    write(genders, "s f\n")
    result = run(PAIRS * 2)
    assert result.returncode == 0, result.stderr

    write(genders, "s m\n")
    result = run(PAIRS)

    assert result.returncode == 2
    assert "> holds data/te/spk2gender " in result.stderr
    assert run(PAIRS.replace("gender", "speaker")).returncode == 2  # other words
    write(genders, "s f\n")
    assert run(PAIRS).returncode == 0


HALF = """
half() {
    local words=$*
    while [ "$1" != --output_dir ]; do shift; done
    [[ ${words} == *".bin.${fails} "* ]] || return 0
    mkdir -p "$2/.parts"; touch "$2/.parts/1.jsonl"; return 1
}
python=half; fails="""


@pytest.mark.parametrize(
    ("command", "script", "source", "half"),
    [
        ("make_pairs", PAIRS, "dump/aligned/te", "dump/pairs/te"),
        ("encode", PAIRS, "exp/taste", "exp/slm/pairs/te/tokens"),
        ("likelihood", PAIRS, "exp/slm", "exp/slm/pairs/te/likelihood"),
        ("encode", BENCHMARKS, "exp/taste", "exp/slm/benchmarks/st/tokens"),
        ("likelihood", BENCHMARKS, "exp/slm", "exp/slm/benchmarks/st/likelihood"),
    ],
)
def test_half_of_a_table_is_of_the_same_input(
    tmp_path, run, command, script, source, half
):
    killed = f"{HALF}{command}\n{script}"
    for _ in range(2):
        result = run(killed)
        assert result.returncode != 0 and "begun" not in result.stderr
        assert (tmp_path / half / ".parts").is_dir()

    write(tmp_path / source / ".done", "new\n")
    result = run(killed)

    assert result.returncode != 0
    assert f"{half} was begun with what is marked '<' above" in result.stderr


@pytest.mark.parametrize("option", ["language=de", "spell_numbers=false"])
def test_continuations_are_known_by_what_the_judge_is_told(tmp_path, run, option):
    assert run(CONTINUATIONS * 2).returncode == 0
    mark = tmp_path / "exp/slm/continuations/te/scores/.done"
    assert mark.read_text().splitlines() == [
        "exp/slm/continuations/te", "made by 4294967295 0"
    ]  # fmt: skip

    result = run(CONTINUATIONS, option + "\n")

    assert result.returncode == 2
    assert f"> --{option.split('=')[0]}" in result.stderr


AUDIO = """
max_audio_utts=2; max_topline_utts=3; judge_opts=(); judge=
split_jobs() { :; }; utils/subset_scp.pl() { head -n "$1" "$2"; }; config_dir=conf
features=dump/features; dset=te
"""
JUDGED = "choose_audio_keys te; reconstruct taste; score_audio taste te\n"


def test_another_number_of_utterances_to_judge_is_not_ignored(tmp_path, run):
    keys = "a b c d"
    table = tmp_path / "dump" / "aligned" / "te" / "wav.scp"
    write(table, "".join(f"{key} {key}.wav\n" for key in keys.split()))
    write(tmp_path / "conf" / "decode.yaml", "seed: 1\n")
    before = "decode_config=decode.yaml\n"
    assert run(AUDIO + JUDGED * 2, before).returncode == 0
    chosen = tmp_path / "exp" / "audio_keys" / "te"
    assert chosen.read_text() == "a\nb\n"
    assert chosen.with_name("te.topline").read_text() == "a\nb\nc\n"

    more = AUDIO.replace("max_audio_utts=2", "max_audio_utts=3")
    result = run(more + JUDGED, before)
    assert result.returncode == 2
    assert "exp/audio_keys/te was chosen with another --max_audio_utts" in result.stderr

    # Chosen anew, they are not those of what was made and judged.
    chosen.unlink()
    result = run(more + JUDGED, before)
    assert result.returncode == 2 and "> holds exp/audio_keys/te" in result.stderr
    result = run(more + "choose_audio_keys te; score_audio taste te", before)
    assert result.returncode == 2 and "> holds exp/audio_keys/te" in result.stderr


@pytest.mark.parametrize("older", [False, True])
def test_options_of_continuations_leave_finished_audio_alone(tmp_path, run, older):
    def reconstruct(first=""):
        script = AUDIO + first + "reconstruct taste\n"
        return run(script, "decode_config=decode.yaml\n")

    both = "batch_size: 8\n{}sampling:\n  top_k: {}\ncompletion:\n  extra_words: {}\n"
    config = tmp_path / "conf" / "decode.yaml"
    write(tmp_path / "dump" / "aligned" / "te" / "wav.scp", "a a.wav\n")
    write(config, both.format("max_prompts: 10\n", 9, 8))
    assert reconstruct("choose_audio_keys te; ").returncode == 0
    mark = tmp_path / "exp" / "taste" / "audio" / "te" / ".done.reconstruct"
    lines = mark.read_text()
    assert "max_prompts" not in lines and "extra_words" not in lines
    if older:
        assert lines.count("sampling:\n  top_k: 9\n") == 1
        mark.write_text(lines[: lines.index("batch_size")] + config.read_text())
        with mark.open("a") as stream:
            stream.write(lines[lines.index("--device") :])

    write(config, both.format("max_prompts: 20\nprompt_words: 3\n", 9, 4))
    result = reconstruct()

    assert result.returncode == 0, result.stderr
    write(config, both.format("", 10, 8))
    result = reconstruct()
    assert result.returncode == 2
    assert "<   top_k: 9\n" in result.stderr and "extra_words" not in result.stderr


def test_a_pack_is_known_by_its_vocoder(tmp_path, run):
    pack = "has_slm() { true; }; stage_pack\n"
    for part in ("taste", "slm", "speaker", "vocoder"):
        write(tmp_path / "exp" / part / ".done", "old\n")
    assert run(pack * 2).returncode == 0
    mark = tmp_path / "exp" / ".done.pack"

    write(tmp_path / "exp" / "vocoder" / ".done", "new\n")
    result = run(pack)

    assert result.returncode == 2
    assert "> holds exp/vocoder/.done" in result.stderr
    lines = mark.read_text().splitlines(keepends=True)
    mark.write_text("".join(x for x in lines if "vocoder" not in x))  # an older one
    assert run(pack).returncode == 0


def test_a_pack_without_spoken_lm_follows_one_with_it(tmp_path, run):
    """Both are one file: the mark of the first kept what the second had made."""
    for part in ("taste", "slm", "vocoder"):
        write(tmp_path / "exp" / part / ".done", "old\n")
    made = 'python() { echo pack "$*"; }; python=python; '
    without, whole = (
        f"{made}has_slm() {{ {has}; }}; stage_pack\n" for has in ("false", "true")
    )

    for script in (without, whole, without, whole):
        result = run(script)
        assert result.stdout.count("bin.pack") == 1, result.stderr
        assert ("--tokenizer_only" in result.stdout) == (script is without)
    assert run(whole).stdout == ""


ALIGN = """
transcripts=corpus; aligner=existing; aligner_opts="--alignments times.ctm"
split_jobs() {
    mkdir -p "$2"
    for key in ${utts}; do echo "${key} x"; done > "$2/text"
}
"""


def test_words_times_of_a_user_are_known_by_what_they_say(tmp_path, run):
    script = ALIGN + "utts='a b'; stage_align\n"
    write(tmp_path / "times.ctm", "a 1 0 1 x\n")
    result = run(script * 2)
    assert result.returncode == 0, result.stderr

    write(tmp_path / "times.ctm", "a 1 0 2 x\n")
    result = run(script)

    assert result.returncode != 0 and "> holds times.ctm" in result.stderr


def test_a_test_set_of_one_utterance_is_refused_before_anything_is_trained(run):
    result = run(ALIGN + "utts=a; aligner_opts=; stage_align")

    assert result.returncode == 2
    assert "test set te has one utterance; scores need two" in result.stderr


@pytest.mark.parametrize(
    ("wav", "text", "message"),
    [
        ("a a.wav\n", "a one\n", "test set te has one utterance; scores need two"),
        ("a a.wav\nb b.wav\n", "a one two\nb  one two\n", "says the same in all"),
    ],
)
def test_a_test_set_that_cannot_be_scored_is_refused_at_once(
    tmp_path, run, wav, text, message
):
    write(tmp_path / "data" / "te" / "wav.scp", wav)
    write(tmp_path / "data" / "te" / "text", text)
    script = "datadir=data; all_sets=te; transcripts=corpus; each() { echo formats; }; "

    result = run(script + "stage_format_audio")

    assert result.returncode == 2 and "formats" not in result.stdout
    assert message in result.stderr
    write(tmp_path / "data" / "te" / "wav.scp", "a a.wav\nb b.wav\n")
    write(tmp_path / "data" / "te" / "text", "a one\nb two\n")
    assert "formats" in run(script + "stage_format_audio").stdout


def test_kept_states_are_not_read_by_a_run_that_asks_for_none(tmp_path, run):
    """They may be of another Whisper or layer, and decoding takes what there is."""
    script = "encoder_states={}; jobs() { :; }; extract_features te\n"
    without = script.replace("{}", "false")
    assert run(without).returncode == 0
    write(tmp_path / "dump" / "features" / "te" / "encoder_states.scp", "")

    result = run(without)

    assert result.returncode == 2
    assert "dump/features/te holds encoder states of another run" in result.stderr
    assert run("dry_run=true; " + without).returncode == 0
    kept = "config_dir=conf; taste_config=t.yaml; " + script.replace("{}", "true")
    assert run(kept).returncode == 0


UNITS = """
encoder_states=true; config_dir=.; units_config=u.yaml; nj=1; python=true; job_cmd=true
split_jobs() { begin "$2/.parts.$3" ""; }
exp=exp/{}; extract_units te
"""


def test_units_of_another_experiment_in_the_same_folder_are_noticed(tmp_path, run):
    write(tmp_path / "u.yaml", "units: kmeans\n")
    first, second = UNITS.replace("{}", "a"), UNITS.replace("{}", "b")
    assert run(first * 2).returncode == 0
    assert run(second).returncode == 0  # as after what was there was removed

    result = run(first)

    assert result.returncode == 2
    assert "dump/features/te holds the units of another experiment" in result.stderr
    assert "exp/a/extracted_units/.done.te to make those of exp/a" in result.stderr
    assert run(second).returncode == 0


LATER = UNITS.replace("exp=exp/{}; extract_units te", "exp=exp/a; dset=te") + """
whisper=w; train_args=; train() { echo trained; }; need_model() { :; }
score() { echo scored; }; score_audio() { :; }; score_codes() { :; }
train_set=te; valid_set=te
"""


@pytest.mark.parametrize(
    ("stage", "mark"),
    [
        ("train_tokenizer taste t.yaml", "exp/a/taste/.done"),
        ("score_tokenizer taste", "exp/a/taste/units/te/.done.score_units"),
    ],
)
def test_later_stages_notice_them_too_unless_they_are_done(tmp_path, run, stage, mark):
    write(tmp_path / "u.yaml", "units: kmeans\n")
    for name in "ab":
        assert run(UNITS.replace("{}", name)).returncode == 0

    result = run(LATER + stage)

    assert result.returncode == 2 and "ed" not in result.stdout
    assert "dump/features/te holds the units of another" in result.stderr
    assert "--stage train_units" in result.stderr
    write(tmp_path / mark, "")
    result = run(LATER + "jobs() { :; }; " + stage)
    assert result.returncode == 0 and "ed" in result.stdout


def test_models_run_where_jobs_run(tmp_path, run):
    """--device cuda would be refused on a login node, which has no GPU."""
    cluster = """
train_cmd=cluster; cuda_cmd="cluster --big"; gpu_inference=true
cluster() { echo "$*" | sed 's/ true -m espnet_taste.bin./ /' >> submitted; }
"""
    audio = "choose_audio_keys() { :; }; score_audio taste te\n"

    result = run(BENCHMARKS + PAIRS + CONTINUATIONS + audio, cluster)

    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in (tmp_path / "submitted").read_text().splitlines()]
    with_gpu = [line[4] for line in lines if line[:3] == ["--big", "--gpu", "1"]]
    assert with_gpu == ["encode", "likelihood"] * 2 + ["score_continuations"]
    assert lines[-1][:2] == ["exp/taste/eval/te/audio.log", "score"]
    assert len(lines) == 6
