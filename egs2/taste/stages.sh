# One function per stage of taste.sh; running.sh has the ways in which they run things.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

exp=${expdir}/${tag:-${corpus}}
raw=${dumpdir}/raw
transcribed=${dumpdir}/transcribed
aligned=${dumpdir}/aligned
features=${dumpdir}/features
all_sets=$(printf '%s\n' ${train_set} ${valid_set} ${test_sets} | awk '!seen[$0]++')
device=cpu
job_cmd=${train_cmd}
# Defaults stay unnamed in what decides a step: its finished steps are those of older runs.
language_opts=()
[ "${language}" = en ] || language_opts=(--language "${language}")
judge_opts=("${language_opts[@]}")
[ "${spell_numbers}" = true ] || judge_opts+=(--spell_numbers false)
# The option is about tokenizers; of all else the best by validation loss is used.
best_model=valid.loss.best.pth
chosen=()
[ "${inference_model}" = "${best_model}" ] || chosen=("${inference_model}")
# Jobs and scores beside a training give way to it: more waits for the training.
[ "${at_once}" -le 1 ] || behind=(nice -n 10)
if "${gpu_inference}"; then
    device=cuda
    job_cmd="${cuda_cmd} --gpu 1"
fi

tokenizer_data() { # tokenizer_data <train|valid> <set>
    local -a speech=("${aligned}/$2/wav.scp,speech,sound")
    if "${encoder_states}"; then
        speech=("${features}/$2/encoder_states.scp,encoder_states,kaldi_ark")
    fi
    files "$1" "${features}/$2/units_shape" "${aligned}/$2/text,text,text" \
        "${features}/$2/units.scp,units,kaldi_ark" \
        "${features}/$2/spembs.scp,spembs,kaldi_ark" \
        "${aligned}/$2/word_times.scp,word_times,kaldi_ark" "${speech[@]}"
}

unit_autoencoder_data() { # unit_autoencoder_data <train|valid> <set>
    files "$1" "${features}/$2/mel_shape" \
        "${features}/$2/unit_states/encoder_states.scp,encoder_states,kaldi_ark" \
        "${features}/$2/spembs.scp,spembs,kaldi_ark" \
        "${features}/$2/mel.scp,mel,kaldi_ark"
}

vocoder_data() { # vocoder_data <train|valid> <set>
    files "$1" "${features}/$2/units_shape" \
        "${features}/$2/units.scp,units,kaldi_ark" \
        "${features}/$2/spembs.scp,spembs,kaldi_ark" \
        "${features}/$2/mel.scp,mel,kaldi_ark"
}

slm_data() { # slm_data <train|valid> <set>
    files "$1" "${exp}/codes/$2/codes_shape" "${aligned}/$2/text,text,text" \
        "${exp}/codes/$2/codes.scp,codes,kaldi_ark"
}

# --- stages -----------------------------------------------------------------

stage_prepare_data() {
    # shellcheck disable=SC2086  # options are words
    once "${datadir}/.done.${corpus}" "${corpus}" ${local_data_opts} -- \
        local/data.sh --corpus "${corpus}" --data_root "${datadir}" ${local_data_opts}
}

stage_format_audio() {
    each format_audio ${all_sets}
}

format_audio() { # format_audio <set>
    local need_text=true
    [ "${transcripts}" = corpus ] || need_text=false
    # shellcheck disable=SC2086  # options are words
    jobs "${datadir}/$1" "${raw}/$1" format_audio --min_s "${min_wav_duration}" \
        --max_s "${max_wav_duration}" --max_excluded "${max_excluded}" \
        --need_text "${need_text}" ${format_opts}
}

stage_align() {
    each align ${all_sets}
}

align() { # align <set>
    local source=${raw}/$1
    # shellcheck disable=SC2086  # options are words
    if [ "${transcripts}" = asr ]; then
        source=${transcribed}/$1
        jobs "${raw}/$1" "${source}" transcribe --whisper "${whisper}" --device "${device}" \
            --max_excluded "${max_excluded}" "${language_opts[@]}" ${asr_opts}
    fi
    # shellcheck disable=SC2086
    jobs "${source}" "${aligned}/$1" align --aligner "${aligner}" \
        --whisper "${whisper}" --max_excluded "${max_excluded}" "${language_opts[@]}" \
        ${aligner_opts}
}

stage_extract_features() {
    check_whisper
    each extract_features ${all_sets}
}

check_whisper() { # the files of conf/ fit the default; another one's are checked in time
    [ "${whisper}" != openai/whisper-tiny.en ] || return 0
    local system config
    local -a configs=()
    for system in ${systems}; do
        config=${system}_config
        is_skipped "train_${system}" || configs+=("${config_dir}/${!config}")
    done
    [ ${#configs[@]} -eq 0 ] \
        || run ${python} -m espnet_taste.bin.check_whisper --whisper "${whisper}" \
            --config "${configs[@]}"
}

is_skipped() { # is_skipped <stage>
    [[ " ${skip_stages} " == *" $1 "* ]]
}

extract_features() { # extract_features <set>
    local -a model=()
    [ "${speaker_model}" = resemblyzer/ge2e ] || model=(--model "${speaker_model}")
    jobs "${aligned}/$1" "${features}/$1" extract_speakers "${model[@]}"
    jobs "${aligned}/$1" "${features}/$1" extract_mel
    if "${encoder_states}"; then
        local yaml_keys="encoder encoder_conf"
        jobs "${aligned}/$1" "${features}/$1" extract_states --device "${device}" \
            --config "${config_dir}/${taste_config}" --whisper "${whisper}"
    fi
}

stage_train_units() {
    if [ "$(units_kind)" != whisper_vq ]; then # clustered, or opened (s3)
        once "${exp}/units/.done" "${config_dir}/${units_config}" "${aligned}/${train_set}" -- \
            ${python} -m espnet_taste.bin.train_units --config "${config_dir}/${units_config}" \
            --data_dir "${aligned}/${train_set}" --output_dir "${exp}/units"
    else
        each extract_unit_states "${train_set}" "${valid_set}"
        # Nothing can run beside it, so it may have the threads of all.
        OMP_NUM_THREADS=$((OMP_NUM_THREADS * at_once)) \
            train unit_autoencoder units_train "${units_config}" unit_autoencoder_data \
            --whisper "${whisper}"
        once "${exp}/units/.done" "${exp}/unit_autoencoder" -- \
            ${python} -m espnet_taste.bin.export_units --output_dir "${exp}/units" \
            --model_file "${exp}/unit_autoencoder/${best_model}" \
            --vocoder_start "${exp}/units/vocoder_start.pth"
    fi
    each extract_units ${all_sets}
}

units_kind() { # the YAML file says which units these are
    sed -n 's/^units: *\([a-z0-9_]*\).*/\1/p' "${config_dir}/${units_config}"
}

vocoder_kind() { # likewise; trainings of the vocoder need not say
    sed -n 's/^vocoder: *\([a-z0-9_]*\).*/\1/p' "${config_dir}/${vocoder_config}"
}

extract_unit_states() { # extract_unit_states <set>: other layers than the aggregator's
    local yaml_keys="encoder encoder_conf"
    jobs "${aligned}/$1" "${features}/$1/unit_states" extract_states --device "${device}" \
        --config "${config_dir}/${units_config}" --whisper "${whisper}"
}

extract_units() { # extract_units <set>
    # Not among the marks of features or units: it is made from both.
    local jobs_marker=${exp}/extracted_units/.done.$1
    local -a states=()
    if [ "$(units_kind)" = whisper_vq ] && [[ " ${train_set} ${valid_set} " == *" $1 "* ]]; then
        states=(--states_scp "${features}/$1/unit_states/encoder_states.scp") # kept for training
    fi
    jobs "${aligned}/$1" "${features}/$1" extract_units --units_dir "${exp}/units" "${states[@]}"
}

stage_train_vocoder() {
    aside train_vocoder
}

train_vocoder() {
    if [ "$(vocoder_kind)" = cosyvoice ]; then # released, nothing to train
        once "${exp}/vocoder/.done" "${config_dir}/${vocoder_config}" -- \
            ${python} -m espnet_taste.bin.install_vocoder \
            --config "${config_dir}/${vocoder_config}" --output_dir "${exp}/vocoder"
        return
    fi
    local init=()
    [ "$(units_kind)" != whisper_vq ] || init=(--init_from "${exp}/units/vocoder_start.pth")
    train vocoder unit_to_mel_train "${vocoder_config}" vocoder_data \
        --units_dir "${exp}/units" "${init[@]}"
}

# Judged before any tokenizer is trained: what the units lose, no tokenizer can say.
stage_score_topline() {
    aside score_topline
}

score_topline() {
    for dset in ${test_sets}; do
        choose_audio_keys "${dset}"
        score_audio original "${dset}"
        reconstruct units_only
        score_audio units_only "${dset}" --wav_scp "${exp}/units_only/audio/${dset}/wav.scp"
    done
}

train_tokenizer() { # train_tokenizer <name> <config> [<model to start from>]
    local init=()
    [ $# -lt 3 ] || init=(--init_from "${exp}/$3")
    # shellcheck disable=SC2086
    train "$1" tokenizer_train "$2" tokenizer_data --whisper "${whisper}" \
        --units_dir "${exp}/units" "${init[@]}" "${language_opts[@]}" ${train_args}
    need_model "$1"
}

need_model() { # need_model <tokenizer>: refuse one that kept other checkpoints
    "${dry_run}" || [ -e "${exp}/$1/${inference_model}" ] \
        || fail "no ${exp}/$1/${inference_model}; choose --inference_model among what its" \
            "best_model_criterion kept: $(cd "${exp}/$1" && echo ./*.best.pth)"
}

note_model() { # for whoever opens the experiment folder without the recipe
    "${dry_run}" || echo "${inference_model}" > "${exp}/taste/inference_model"
}

stage_train_text_only() {
    train_tokenizer text_only "${text_only_config}"
}

stage_train_without_vq() {
    train_tokenizer without_vq "${without_vq_config}" "text_only/${inference_model}"
}

stage_train_taste() {
    once "${exp}/quantizer_start/.done" "${config_dir}/${taste_config}" "${exp}/without_vq" \
        "${chosen[@]}" -- \
        ${python} -m espnet_taste.bin.start_quantizer --config "${config_dir}/${taste_config}" \
        --model_file "${exp}/without_vq/${inference_model}" \
        --data_dir "${aligned}/${train_set}" --features_dir "${features}/${train_set}" \
        --output "${exp}/quantizer_start/model.pth"
    train_tokenizer taste "${taste_config}" quantizer_start/model.pth
    note_model
}

stage_train_text_only_control() {
    aside train_control text_only
}

stage_train_without_vq_control() {
    aside train_control without_vq
}

train_control() { # train_control <model to continue>
    local config=${1}_control_config
    train_tokenizer "$1_control" "${!config}" "$1/${inference_model}"
}

stage_extract_codes() {
    each extract_codes ${all_sets}
    note_model # refused above if there are codes of another
}

extract_codes() { # extract_codes <set>
    jobs "${aligned}/$1" "${exp}/codes/$1" extract_codes --device "${device}" \
        --model_file "${exp}/taste/${inference_model}" --features_dir "${features}/$1"
}

stage_train_slm() {
    aside train_slm
}

train_slm() {
    # shellcheck disable=SC2086
    train slm slm_train "${slm_config}" slm_data --llm "${llm}" \
        --tokenizer_file "${exp}/taste/${inference_model}" ${slm_args}
}

systems="text_only without_vq taste text_only_control without_vq_control"

# Synthesis and judging cost more than all other scores, so a large test set may be
# represented by utterances spread evenly over it: by more of them for the original and
# the units, whose word errors decide whether any other row means something. What the
# judge hears in the original serves all, so the few are among the many.
choose_audio_keys() { # choose_audio_keys <set>
    local most=$((max_topline_utts > max_audio_utts ? max_topline_utts : max_audio_utts))
    local many few
    many=$(audio_keys units_only "$1")
    few=$(audio_keys taste "$1")
    "${dry_run}" && return
    if [ ! -s "${many}" ] || [ ! -s "${few}" ]; then
        mkdir -p "${exp}/audio_keys"
        choose_evenly "${most}" "${aligned}/$1/wav.scp" "${many}"
        choose_evenly "${max_audio_utts}" "${many}" "${few}"
    fi
}

audio_keys() { # audio_keys <system> <set>
    case $1 in
        original | units_only) echo "${exp}/audio_keys/$2.topline" ;;
        *) echo "${exp}/audio_keys/$2" ;;
    esac
}

choose_evenly() { # choose_evenly <most> <file of keys> <new file>
    if [ "$(wc -l < "$2")" -gt "$1" ]; then
        utils/subset_scp.pl "$1" "$2"
    else
        cat "$2"
    fi | cut -d ' ' -f 1 > "$3.part"
    mv "$3.part" "$3"
}

stage_reconstruct() {
    join_asides train_slm
    for dset in ${test_sets}; do
        choose_audio_keys "${dset}"
        trained=$(trained_systems)
        each reconstruct ${trained}
    done
}

reconstruct() { # reconstruct <system>, of the set in dset
    local -a source=(--model_file "${exp}/$1/${inference_model}")
    [ "$1" != units_only ] || source=(--units_only)
    local key_subset
    key_subset=$(audio_keys "$1" "${dset}")
    jobs "${aligned}/${dset}" "${exp}/$1/audio/${dset}" reconstruct "${source[@]}" \
        --config "${config_dir}/${decode_config}" --device "${device}" \
        --vocoder_dir "${exp}/vocoder" --features_dir "${features}/${dset}"
}

trained_systems() { # the tokenizers that exist: controls may have been skipped
    for system in ${systems}; do
        if [ -e "${exp}/${system}/.done" ] || "${dry_run}"; then
            need_model "${system}"
            echo "${system}"
        fi
    done
}

score() { # score <system> <set> <kind> <options...>
    local system=$1 dset=$2 kind=$3
    shift 3
    local dir=${exp}/${system}/eval/${dset}
    # The cache of what the judge heard is no input: it only spares work.
    once "${dir}/.done.${kind}" "$@" "${aligned}/${dset}/wav.scp" -- \
        "${behind[@]}" ${python} -m espnet_taste.bin.score --kind "${kind}" --system "${system}" \
        --set "${dset}" --data_dir "${aligned}/${dset}" --output_dir "${dir}" \
        --reference_cache "${exp}/original/eval/${dset}/judge.jsonl" "$@"
}

score_audio() { # score_audio <system> <set> <options...>
    score "$1" "$2" audio --key_file "$(audio_keys "$1" "$2")" "${judge_opts[@]}" "${@:3}"
}

# The spoken LM may still be trained while these are judged.
stage_score_tokenizers() {
    join_asides train_slm
    for dset in ${test_sets}; do
        trained=$(trained_systems)
        each score_tokenizer units_only ${trained}
    done
}

score_tokenizer() { # score_tokenizer <system>, on the set in dset
    case $1 in
        units_only)
            score_codes "$1" --units_scp "${features}/${dset}/units.scp"
            return
            ;;
        taste) score_codes "$1" --codes_scp "${exp}/codes/${dset}/codes.scp" ;;
    esac
    jobs "${aligned}/${dset}" "${exp}/$1/units/${dset}" score_units --device "${device}" \
        --model_file "${exp}/$1/${inference_model}" --features_dir "${features}/${dset}"
    score "$1" "${dset}" units --unit_scores "${exp}/$1/units/${dset}/unit_scores.jsonl"
    score_audio "$1" "${dset}" --wav_scp "${exp}/$1/audio/${dset}/wav.scp" \
        --generation_report "${exp}/$1/audio/${dset}/report.jsonl"
}

score_codes() { # score_codes <system> <options...>, of the set in dset
    score "$1" "${dset}" codes "${@:2}" --train_config "${exp}/taste/config.yaml"
}

stage_continue_speech() {
    join_asides
    for dset in ${test_sets}; do
        jobs "${aligned}/${dset}" "${exp}/slm/continuations/${dset}" continue_speech \
            --config "${config_dir}/${decode_config}" --device "${device}" \
            --slm_file "${exp}/slm/${best_model}" \
            --tokenizer_file "${exp}/taste/${inference_model}" \
            --features_dir "${features}/${dset}" --vocoder_dir "${exp}/vocoder"
    done
}

stage_score_pairs() {
    [ -n "${pair_kinds}" ] || return 0
    join_asides
    each score_pairs_of ${test_sets}
}

score_pairs_of() { # score_pairs_of <set>
    local made=${dumpdir}/pairs/$1 dir=${exp}/slm/pairs/$1
    # shellcheck disable=SC2086  # options are words
    once "${made}/.done.make_pairs" "${aligned}/$1" ${pair_kinds} "${num_pairs}" ${pair_opts} -- \
        ${python} -m espnet_taste.bin.make_pairs --data_dir "${aligned}/$1" \
        --output_dir "${made}" --kinds ${pair_kinds} --num_pairs "${num_pairs}" ${pair_opts}
    once "${dir}/tokens/.done.encode" "${made}" "${exp}/taste" "${chosen[@]}" -- \
        ${python} -m espnet_taste.bin.encode --model "${exp}" --data_dir "${made}" \
        --output_dir "${dir}/tokens" --device "${device}" --max_excluded "${max_excluded}"
    once "${dir}/likelihood/.done.likelihood" "${dir}/tokens" "${exp}/slm" -- \
        ${python} -m espnet_taste.bin.likelihood --model "${exp}" --device "${device}" \
        --tokens "${dir}/tokens/tokens.jsonl" --moments "${made}/moments" \
        --transcripts given --output_dir "${dir}/likelihood" --max_excluded "${max_excluded}"
    once "${dir}/.done.score_pairs" "${dir}/likelihood" "${made}" -- \
        ${python} -m espnet_taste.bin.score_pairs --pairs "${made}/pairs" \
        --likelihoods "${dir}/likelihood/likelihoods.jsonl" --output_dir "${dir}" \
        --max_skipped "${max_excluded}"
}

stage_score_slm() {
    join_asides
    each score_slm ${test_sets}
}

score_slm() { # score_slm <set>
    local -a codes=(--codes_scp "${exp}/codes/$1/codes.scp"
        --train_codes_scp "${exp}/codes/${train_set}/codes.scp")
    jobs "${aligned}/$1" "${exp}/slm/scores/$1" score_slm --device "${device}" \
        --slm_file "${exp}/slm/${best_model}" --codes_dir "${exp}/codes/$1" \
        --train_codes_scp "${exp}/codes/${train_set}/codes.scp"
    score slm "$1" slm --slm_scores "${exp}/slm/scores/$1/slm_scores.jsonl" "${codes[@]}" \
        --train_config "${exp}/taste/config.yaml"
}

has_slm() { # the spoken LM is optional: its stages may have been skipped
    join_asides
    "${dry_run}" || [ -e "${exp}/slm/config.yaml" ]
}

stage_report() {
    local -a rows=(--system "original=${exp}/original" --system "units=${exp}/units_only")
    local -a configs=(--config "${config_dir}/${taste_config}")
    if has_slm && ! is_skipped score_slm; then
        rows+=(--system "slm=${exp}/slm")
        configs+=(--config "${config_dir}/${slm_config}")
    fi
    local -A role=([text_only]=text_only [without_vq]=no_quantizer [taste]=taste
        [text_only_control]=text_only_control [without_vq_control]=no_quantizer_control)
    trained=$(trained_systems)
    for system in ${trained}; do
        rows+=(--system "${role[${system}]}=${exp}/${system}")
    done
    local -a folders=()
    for dset in ${all_sets}; do
        folders+=(--data_dir "${raw}/${dset}" --data_dir "${aligned}/${dset}")
        [ "${transcripts}" = corpus ] || folders+=(--data_dir "${transcribed}/${dset}")
    done
    for dset in ${test_sets}; do
        [ ! -f "${exp}/slm/pairs/${dset}/pairs.json" ] \
            || rows+=(--pairs "${dset}=${exp}/slm/pairs/${dset}/pairs.json")
    done
    # shellcheck disable=SC2086  # several sets
    run ${python} -m espnet_taste.bin.report "${rows[@]}" "${folders[@]}" \
        --test_sets ${test_sets} --output_dir "${exp}" \
        --train_config "${exp}/taste/config.yaml" \
        --meta "corpus=${corpus}" --meta "transcripts=${transcripts}" \
        "${configs[@]}"
}

stage_pack() {
    local marker=${exp}/.done.pack
    local -a parts=("${exp}/taste" "${exp}/slm")
    if ! has_slm; then # another marker: a spoken LM that is trained later is packed too
        marker=${exp}/.done.pack_tokenizer
        parts=("${exp}/taste")
    fi
    once "${marker}" "${parts[@]}" "${chosen[@]}" -- \
        ${python} -m espnet_taste.bin.pack --exp_dir "${exp}" \
        --inference_model "${inference_model}" --output "${exp}/taste.zip"
}
