#!/usr/bin/env bash
# TASTE: data -> units -> speech tokenizer -> codes -> spoken LM -> scores.
set -euo pipefail

# One name per stage, in running order. Its position is its number, so the log,
# --help and the resume hint below cannot disagree.
stages=(
    prepare_data        # local/data.sh -> data/<set>
    format_audio        # 16 kHz, length filter, counts of what was dropped
    align               # words and their times; transcripts first, if there are none
    extract_features    # speaker embeddings, mel frames, Whisper encoder states
    train_units         # discrete speech units of this corpus, and those of all sets
    train_vocoder       # the way back from units to a waveform
    score_topline       # the original and the units alone: what any model can reach
    train_text_only     # tokenizer sub-stage 1: decoder from text alone
    train_text_only_control   # the row of text alone, trained on as long as sub-stages 2 and 3
    train_without_vq    # tokenizer sub-stage 2: aggregator, no quantizer
    train_without_vq_control  # the row without quantizer, trained on as long as sub-stage 3
    train_taste         # tokenizer sub-stage 3: residual quantizer
    extract_codes       # TASTE codes of all sets, arks and a readable table
    train_slm           # spoken LM, LoRA
    reconstruct         # test sets: text + codes -> units -> audio
    score_tokenizers    # units, audio and rates of the tokenizers
    continue_speech     # spoken prompts of the test sets, continued
    score_continuations # what a judge hears in them, if it is wanted
    score_pairs         # spoken LM on pairs of real speech that differ in one thing
    score_answers       # its answers to spoken questions, if any are given
    score_slm           # losses of the spoken LM
    report              # results.json and RESULTS.md
    pack                # one loadable file
)

# --- options (each is --<name> <value>) -------------------------------------
stage=1              # first stage to run, number or name
stop_stage=100       # last stage to run, number or name
skip_stages=         # stages to leave out, e.g. "train_text_only_control pack"
dry_run=false        # print the commands instead of running them
ngpu=0               # GPUs a node; 0 means CPU
num_nodes=1          # nodes of a training
nj=2                 # parallel jobs of the other stages
at_once=1            # above 1: so many sets or systems are handled at the same time,
                     # and vocoder, controls and spoken LM are trained beside other stages
gpu_inference=false  # run extraction and decoding on GPUs too
python=python3       # interpreter, e.g. "coverage run --append" for tests
tag=                 # name of the experiment; default: name of the corpus
datadir=data         # prepared corpora; two that share names of sets need a folder each
dumpdir=dump         # formatted audio and features
expdir=exp           # models and results
corpus=mini_an4      # what local/data.sh prepares
local_data_opts=     # further options of local/data.sh
train_set=           # names of folders in datadir
valid_set=
test_sets=
min_wav_duration=0.1 # seconds; shorter and longer audio is dropped and counted
max_wav_duration=30
max_excluded=0.2     # share of a set that may be dropped before the stage stops
format_opts=         # further options of espnet_taste.bin.format_audio
language=en          # of the speech, as Whisper abbreviates it; others need a
                     # multilingual --whisper and an --aligner that knows them
judge=Systran/faster-whisper-base # recogniser of all word errors; never the one of --whisper
spell_numbers=true   # false if the transcripts write numbers in digits: the judge may too
transcripts=corpus   # corpus, or asr: made by Whisper or by an ESPnet recogniser
asr_opts=            # options of espnet_taste.bin.transcribe: which recogniser
aligner=pocketsphinx # pocketsphinx, whisper, ctc or existing
aligner_opts=        # further options of espnet_taste.bin.align
whisper=openai/whisper-tiny.en          # frozen encoder and aggregator start
llm=HuggingFaceTB/SmolLM2-135M-Instruct # text LLM of the spoken LM
speaker_model=resemblyzer/ge2e          # or an ONNX file of CAM++
encoder_states=true  # cache the frozen encoder's states instead of recomputing
config_dir=conf      # folder of the following files
units_config=train_units.yaml   # or units.yaml: k-means classes; released/units.yaml: S3
vocoder_config=train_unit_to_mel.yaml # with k-means classes kmeans/train_unit_to_mel.yaml;
                                      # or released/vocoder.yaml: CosyVoice's
text_only_config=train_text_only.yaml
without_vq_config=train_without_vq.yaml
taste_config=train_taste.yaml
text_only_control_config=train_text_only_control.yaml
without_vq_control_config=train_without_vq_control.yaml
slm_config=train_slm.yaml
decode_config=decode.yaml
train_args=          # further options of every tokenizer training
slm_args=            # further options of the spoken LM training
inference_model=valid.loss.best.pth # which checkpoint of the tokenizers is used
pair_kinds=          # pairs that score_pairs makes of the test sets, e.g.
                     # "speaker_switch topic_switch"; default: none
num_pairs=100        # of every kind and test set, at most
pair_opts=           # further options of espnet_taste.bin.make_pairs
benchmark_sets=      # sets of local/prepare_pairs.py that score_pairs scores as well, e.g.
                     # "salmon sSC tSC"; default: none
question_sets=       # sets of local/prepare_questions.py that score_answers asks, e.g.
                     # "llama_questions"; default: none
question_shots=      # set of spoken examples, question and answer, to put before each
question_opts=       # further options of espnet_taste.bin.complete for the answers
benchmark_transcripts= # the words of both: asr, by Whisper, or given, their text; of
                     # single sets by name: "asr sWUGGY=given"; default: given for
                     # sWUGGY and sBLIMP, asr for all others
continuation_scores=false # judge what continue_speech makes
continuation_opts=   # further options of espnet_taste.bin.score_continuations
max_audio_utts=50    # utterances of a test set that are synthesised and judged
max_topline_utts=200 # likewise from the units alone, and of the original

help_message() {
    echo "Usage: ./run.sh [--corpus NAME] [options], or ./taste.sh [options]"
    (cd conf/corpora && echo "Corpora, files of options: $(echo *.opts)")
    printf '%s\n' "Stages: ${stages[*]}" "" "Options and their defaults; each is --<name> <value>:"
    sed -n '/^stage=1/,/^max_topline_utts=/p' "$0"
}

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') $*"; }
fail() { echo "$0: $*" >&2; exit 2; }

if [[ " $* " == *" --help "* ]]; then
    help_message
    exit 0
fi
run_args=$(printf '%q ' "$@")
if (($# % 2)) && [[ "${!#}" =~ ^--[^=]+$ ]]; then
    fail "option ${!#} has no value; options are --<name> <value>"
fi
. ./path.sh
. utils/parse_options.sh
. ./cmd.sh
. ./marks.sh
. ./running.sh
. ./stages.sh
. ./scores.sh
. ./benchmarks.sh

[ $# -eq 0 ] || fail "unexpected argument '$1'; options are --<name> <value>"
for name in train_set valid_set test_sets; do
    [ -n "${!name}" ] || fail "--${name} is required"
done
[[ "${transcripts}" =~ ^(corpus|asr)$ ]] \
    || fail "--transcripts is corpus or asr, not '${transcripts}'"
if [ "${language}" != en ]; then
    [ "${aligner}" != pocketsphinx ] || fail "--language ${language}: PocketSphinx" \
        "knows English only; choose --aligner whisper, ctc or existing"
    [[ "${whisper}" != *.en ]] || fail "--language ${language}: ${whisper} knows" \
        "English only; choose a multilingual one, e.g. --whisper openai/whisper-tiny"
fi
[ "${judge##*faster-}" != "${whisper##*/}" ] \
    || fail "--judge ${judge} has the weights of --whisper ${whisper}, and what a tokenizer" \
        "was built on would judge it; choose another one, e.g. Systran/faster-whisper-small"
for name in ${skip_stages}; do
    [[ " ${stages[*]} " == *" ${name} "* ]] \
        || fail "--skip_stages: no stage '${name}'; stages: ${stages[*]}"
done

need_count() { # need_count <option> <least>
    { [[ "${!1}" =~ ^[0-9]{1,9}$ ]] && ((10#${!1} >= $2)); } \
        || fail "--$1 is a whole number from $2 on, not '${!1}'"
}
for name in num_nodes nj at_once num_pairs; do
    need_count "${name}" 1
done
need_count ngpu 0
[ "${num_nodes}" -eq 1 ] || [ "${cuda_cmd%% *}" != run.pl ] \
    || fail "--num_nodes ${num_nodes}: run.pl starts jobs on this machine only; set" \
        "cmd_backend to that of your cluster, see cmd.sh"
for name in max_audio_utts max_topline_utts; do
    [ "${!name}" != 1 ] || fail "--${name} must be at least 2: intervals need two utterances"
    need_count "${name}" 2
done
[[ "${max_excluded}" =~ ^(0?\.[0-9]+|0|1|1\.0+|0\.)$ ]] \
    || fail "--max_excluded is a share from 0 to 1, not '${max_excluded}'"
[[ "${aligner}" =~ ^(pocketsphinx|whisper|ctc|existing)$ ]] \
    || fail "--aligner is pocketsphinx, whisper, ctc or existing, not '${aligner}'"
for name in ${pair_kinds}; do
    [[ "${name}" =~ ^(speaker|gender|topic|prosody|background|reverb)_switch$ ]] \
        || fail "--pair_kinds: no '${name}'; see python -m espnet_taste.bin.make_pairs --help"
done
for name in train_set valid_set; do
    [[ "${!name}" != *[[:space:]]* ]] || fail "--${name} is one folder in ${datadir}, not" \
        "'${!name}'; local/prepare_kaldi_dir.py --set joins folders"
done
for name in tag dumpdir expdir; do
    [[ "${!name}" != *[[:space:],]* ]] || fail "--${name} '${!name}': ESPnet's launchers" \
        "and data options take no paths with blanks or commas"
done
awk -v most="${max_wav_duration}" 'BEGIN { exit !(most > 0 && most <= 30) }' \
    || fail "--max_wav_duration is above 0 and at most 30, the seconds that Whisper hears at" \
        "once, not '${max_wav_duration}'"
twice=$(printf '%s\n' ${test_sets} | sort | uniq -d | head -n 1)
[ -z "${twice}" ] || fail "--test_sets names ${twice} twice"
for word in ${benchmark_transcripts}; do
    [[ "${word}" =~ ^([^=]+=)?(asr|given)$ ]] && [[ "${word}" != *=* \
        || " ${benchmark_sets} ${question_sets} ${question_shots} " == *" ${word%%=*} "* ]] \
        || fail "--benchmark_transcripts is asr or given, or a set of --benchmark_sets or" \
            "--question_sets with it as in sWUGGY=given, not '${word}'"
done

# --- driver -----------------------------------------------------------------

number_of() { # number_of <stage name or number>
    local i
    for ((i = 0; i < ${#stages[@]}; i++)); do
        [ "${stages[i]}" = "$1" ] && echo "$((i + 1))" && return
    done
    [[ "$1" =~ ^[0-9]{1,9}$ ]] || fail "no stage '$1'; stages: ${stages[*]}"
    echo "$((10#$1))"
}

# What a stage would miss only after hours of others.
check_inputs() { # check_inputs <stage>
    local config=${1#train_}_config
    case $1 in
        train_*) ;;
        extract_features | report) config=taste_config ;;
        score_topline | reconstruct | continue_speech) config=decode_config ;;
        score_pairs)
            for name in ${benchmark_sets}; do
                [ -f "${datadir}/${name}/pairs" ] || "${dry_run}" || fail "--benchmark_sets:" \
                    "no ${datadir}/${name}/pairs; local/data.sh --corpus pairs makes it"
            done
            return
            ;;
        score_answers)
            for name in ${question_sets}; do
                [ -f "${datadir}/${name}/answers" ] || "${dry_run}" || fail "--question_sets:" \
                    "no ${datadir}/${name}/answers; local/data.sh --corpus questions makes it"
            done
            return
            ;;
        pack)
            [[ "$(realpath -m "${exp}")" == "$(pwd -P)"/* ]] || fail "stage pack: ${exp}" \
                "is, or leads, outside this folder, and a pack holds relative paths; leave" \
                "it out by --skip_stages pack, or keep --expdir in this folder"
            return
            ;;
        *) return ;;
    esac
    [ -f "${config_dir}/${!config}" ] || fail "no ${config_dir}/${!config}, which stage $1" \
        "reads; see --config_dir and --${config}"
    if [ "$1 ${vocoder_config}" = "train_vocoder train_unit_to_mel.yaml" ] \
        && [ -f "${config_dir}/${units_config}" ] && [ "$(units_kind)" != whisper_vq ] \
        && [ -f "${config_dir}/kmeans/train_unit_to_mel.yaml" ]; then
        fail "the units of ${units_config} come without a decoder, and ${vocoder_config} only" \
            "polishes one; add --vocoder_config kmeans/train_unit_to_mel.yaml"
    fi
}

# Told before hours of preparation; a cluster's GPUs are not those of this machine.
check_gpus() {
    local found
    [ "${ngpu}" -gt 0 ] && [ "${cuda_cmd%% *}" = run.pl ] && ! "${dry_run}" || return 0
    found=$(${python} -c 'import torch; print(torch.cuda.device_count())')
    [ "${found}" -ge "${ngpu}" ] || fail "--ngpu ${ngpu}: torch finds ${found} GPUs here"
}

run_stages() {
    trap stop_others EXIT
    local first last
    first=$(number_of "${stage}")
    last=$(number_of "${stop_stage}")
    local -a wanted=()
    for ((number = 1; number <= ${#stages[@]}; number++)); do
        ((number < first || number > last)) || is_skipped "${stages[number - 1]}" \
            || wanted+=("${number}")
    done
    [ ${#wanted[@]} -gt 0 ] || fail "no stage is left from --stage ${stage} to --stop_stage" \
        "${stop_stage}; there are ${#stages[@]}, and --skip_stages leaves out '${skip_stages}'"
    for number in "${wanted[@]}"; do
        check_inputs "${stages[number - 1]}"
    done
    check_gpus
    for number in "${wanted[@]}"; do
        name=${stages[number - 1]}
        begin_stage "${number}"
        log "stage ${number}: ${name} (resume: $0 ${run_args}--stage ${resume_from})"
        "stage_${name}"
    done
    join_asides
    log "done"
    echo "results   ${exp}/RESULTS.md, ${exp}/results.json"
    echo "audio     listed in ${exp}/*/audio/<set>/wav.scp, ${exp}/slm/continuations/<set>/wav.scp"
    echo "plots     ${exp}/*/images, ${exp}/*/att_ws (words against time), ${exp}/*/tensorboard"
    echo "packed    ${exp}/taste.zip"
}

# With what follows on one line: bash reads this file while it runs, and it may be edited
# meanwhile.
run_stages; exit
