# One function per stage of taste.sh, up to the last training; scores.sh has the others,
# benchmarks.sh those that judge the spoken LM as others do, running.sh the ways in which
# they run things, marks.sh by what finished and begun work is known again.
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
[ "${judge}" = Systran/faster-whisper-base ] || judge_opts+=(--judge "${judge}")
[ "${spell_numbers}" = true ] || judge_opts+=(--spell_numbers false)
# The option is about tokenizers; of all else the best by validation loss is used.
best_model=valid.loss.best.pth
chosen=()
[ "${inference_model}" = "${best_model}" ] || chosen=("${inference_model}")
# Jobs and scores beside a training give way to it: more waits for the training.
[ "${at_once}" -le 1 ] || behind=(nice -n 10)
# Where several sets or systems are at work at once, small ones need no jobs of their own.
[ "${at_once}" -le 1 ] || least=100
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
    # An ESPnet corpus whose options stand in conf/corpora: its own recipe prepares folders.
    local maker=${corpus}
    [ -f "local/prepare_${corpus}.py" ] || [ ! -f "conf/corpora/${corpus}.opts" ] \
        || maker=kaldi_dir
    # shellcheck disable=SC2086  # options are words
    once "${datadir}/.done.${corpus}" "${corpus}" ${local_data_opts} -- \
        local/data.sh --corpus "${maker}" --data_root "${datadir}" ${local_data_opts}
}

stage_format_audio() {
    for dset in ${all_sets}; do # before the first is formatted, which may take hours
        [ -f "${datadir}/${dset}/wav.scp" ] || "${dry_run}" \
            || fail "no ${datadir}/${dset}/wav.scp; prepare it, or name other folders by" \
                "--datadir, --train_set, --valid_set and --test_sets"
    done
    "${dry_run}" || refuse_small_sets
    each format_audio ${all_sets}
}

refuse_small_sets() { # of one utterance, or of several that all say the same
    local table
    for dset in ${test_sets}; do
        table=${datadir}/${dset}/segments
        [ -f "${table}" ] || table=${datadir}/${dset}/wav.scp
        [ "$(wc -l < "${table}")" -ge 2 ] || fail "test set ${dset} has one utterance; scores" \
            "need two, for intervals and to exchange text and codes"
        table=${datadir}/${dset}/text
        [ "${transcripts}" = asr ] || [ ! -f "${table}" ] \
            || [ "$(sed -E 's/^[^ \t]+[ \t]*//' "${table}" | sort -u | wc -l)" -ge 2 ] \
            || fail "test set ${dset} says the same in all utterances; scores need two texts," \
                "to exchange them"
    done
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
    "${dry_run}" && return
    for dset in ${test_sets}; do
        [ "$(wc -l < "${aligned}/${dset}/text")" -ge 2 ] || fail "test set ${dset} has one" \
            "utterance; scores need two, for intervals and to exchange text and codes"
    done
}

align() { # align <set>
    local source=${raw}/$1
    # shellcheck disable=SC2086  # options are words
    if [ "${transcripts}" = asr ]; then
        source=${transcribed}/$1
        jobs "${raw}/$1" "${source}" transcribe --whisper "${whisper}" --device "${device}" \
            --max_excluded "${max_excluded}" "${language_opts[@]}" ${asr_opts}
    fi
    local word
    local -a placed=() # these run a network
    [[ ! "${aligner}" =~ ^(whisper|ctc)$ ]] || placed=(--device "${device}")
    local -a held=() # times that a user brings, if these are files
    for word in ${aligner_opts}; do
        [ ! -f "${word}" ] || held+=("holds:${word}")
    done
    # shellcheck disable=SC2086
    jobs "${source}" "${aligned}/$1" align --aligner "${aligner}" \
        --whisper "${whisper}" --max_excluded "${max_excluded}" "${language_opts[@]}" \
        "${placed[@]}" ${aligner_opts}
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
    elif ! "${dry_run}" && [ -f "${features}/$1/encoder_states.scp" ]; then
        fail "${features}/$1 holds encoder states of another run, which later stages would" \
            "read; choose another --dumpdir, or leave out --encoder_states false"
    fi
}

stage_train_units() {
    if [ "$(units_kind)" != whisper_vq ]; then # clustered, or opened (s3)
        once "${exp}/units/.done" "${config_dir}/${units_config}" "${aligned}/${train_set}" -- \
            alone "${train_cmd}" "${exp}/units/train.log" ${python} \
            -m espnet_taste.bin.train_units --config "${config_dir}/${units_config}" \
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

# refuse_other_units <set...>: tags may share a dumpdir, and another experiment may since
# have put its units there
refuse_other_units() {
    local dset mark begun
    for dset in "$@"; do
        mark=${exp}/extracted_units/.done.${dset}
        begun=${features}/${dset}/.parts.extract_units/.begun
        if [ -f "${mark}" ] && [ -f "${begun}" ] && ! cmp -s "${mark}" "${begun}"; then
            fail "${features}/${dset} holds the units of another experiment; remove" \
                "${begun%/*} and ${mark} to make those of ${exp} again (--stage" \
                "train_units), and give each a --dumpdir"
        fi
    done
}

extract_units() { # extract_units <set>
    # Not among the marks of features or units: it is made from both.
    local jobs_marker=${exp}/extracted_units/.done.$1
    refuse_other_units "$1"
    local -a states=()
    if [ "$(units_kind)" = whisper_vq ] && [[ " ${train_set} ${valid_set} " == *" $1 "* ]]; then
        states=(--states_scp "${features}/$1/unit_states/encoder_states.scp") # kept for training
    fi
    jobs "${aligned}/$1" "${features}/$1" extract_units --device "${device}" \
        --units_dir "${exp}/units" "${states[@]}"
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

# refuse_other_states <config of a training>: it would be given those of another encoder
# than it says, and what is heard later would be encoded by the latter
refuse_other_states() {
    local dset mark yaml_keys="encoder encoder_conf" signature config=${config_dir}/$1
    "${encoder_states}" && ! "${dry_run}" && settings_of "${config}" | grep '^encoder_conf' > /dev/null \
        || return 0
    for dset in "${train_set}" "${valid_set}"; do
        mark=${features}/${dset}/.done.extract_states
        signature=$(signature_of "${aligned}/${dset}" extract_states --device "${device}" \
            --config "${config}" --whisper "${whisper}")
        if [ -f "${mark}" ] && ! is_made_so "${mark}"; then
            diff <(deciding 1 < "${mark}") <(deciding 1 <<< "${signature}") >&2 || true
            fail "${config} is not of the encoder states in ${features}/${dset}, which are" \
                "what is marked '<' above; give all tokenizers the encoder of" \
                "${taste_config} and the same --whisper, or extract states again" \
                "(another --dumpdir), or leave them out (--encoder_states false)"
        fi
    done
}

train_tokenizer() { # train_tokenizer <name> <config> [<model to start from>]
    local init=()
    [ $# -lt 3 ] || init=(--init_from "${exp}/$3")
    if [ ! -f "${exp}/$1/.done" ]; then
        refuse_other_units "${train_set}" "${valid_set}"
        refuse_other_states "$2"
    fi
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
    # Whoever opens the experiment must embed speakers as it did; the default needs no
    # record, nor do older runs of it.
    [ "${speaker_model}" = resemblyzer/ge2e ] \
        || once "${exp}/speaker/.done" "${speaker_model}" -- \
            ${python} -m espnet_taste.bin.record_speaker --model "${speaker_model}" \
            --output_dir "${exp}/speaker"
    once "${exp}/quantizer_start/.done" "${config_dir}/${taste_config}" "${exp}/without_vq" \
        "${chosen[@]}" -- \
        alone "${job_cmd}" "${exp}/quantizer_start/start.log" ${python} \
        -m espnet_taste.bin.start_quantizer --config "${config_dir}/${taste_config}" \
        --model_file "${exp}/without_vq/${inference_model}" --device "${device}" \
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
    local in_turn=false # nor do the audio and scores of tokenizers wait for it
    aside train_slm
}

train_slm() {
    # shellcheck disable=SC2086
    train slm slm_train "${slm_config}" slm_data --llm "${llm}" \
        --tokenizer_file "${exp}/taste/${inference_model}" ${slm_args}
}
