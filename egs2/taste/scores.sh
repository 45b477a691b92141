# The stages of taste.sh that use what was trained: audio, scores, report and pack.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

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
    mkdir -p "${exp}/audio_keys"
    choose_evenly "${most}" "${aligned}/$1/wav.scp" "${many}"
    choose_evenly "${max_audio_utts}" "${many}" "${few}"
}

audio_keys() { # audio_keys <system> <set>
    case $1 in
        original | units_only) echo "${exp}/audio_keys/$2.topline" ;;
        *) echo "${exp}/audio_keys/$2" ;;
    esac
}

choose_evenly() { # choose_evenly <most> <file of keys> <new file>
    local chosen
    if [ "$(wc -l < "$2")" -gt "$1" ]; then
        chosen=$(utils/subset_scp.pl "$1" "$2" | cut -d ' ' -f 1)
    else
        chosen=$(cut -d ' ' -f 1 "$2")
    fi
    if [ ! -s "$3" ]; then
        echo "${chosen}" > "$3.part.${BASHPID}"
        mv "$3.part.${BASHPID}" "$3"
    elif [ "${chosen}" != "$(cat "$3")" ]; then
        fail "$3 was chosen with another --max_audio_utts or --max_topline_utts, or of" \
            "another $2; remove it to choose anew, or choose another --tag"
    fi
}

stage_reconstruct() {
    join_asides train_slm train_control
    # What is trained already need not wait for the controls.
    ! works_aside || reconstruct_trained
    join_asides train_slm
    reconstruct_trained
}

reconstruct_trained() {
    for dset in ${test_sets}; do
        choose_audio_keys "${dset}"
        trained=$(trained_systems)
        each reconstruct ${trained}
    done
}

reconstruct() { # reconstruct <system>, of the set in dset
    local -a source=(--model_file "${exp}/$1/${inference_model}")
    [ "$1" != units_only ] || source=(--units_only)
    local key_subset yaml_keys="batch_size seed sampling"
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
    local -a held=()
    [ "${kind}" != audio ] || held=("holds:$(audio_keys "${system}" "${dset}")")
    # The cache of what the judge heard is no input: it only spares work.
    once "${dir}/.done.${kind}" "$@" "${aligned}/${dset}/wav.scp" "${held[@]}" -- \
        alone "${train_cmd}" "${dir}/${kind}.log" "${behind[@]}" ${python} \
        -m espnet_taste.bin.score --kind "${kind}" --system "${system}" --set "${dset}" --data_dir "${aligned}/${dset}" --output_dir "${dir}" \
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
    [ -f "${exp}/$1/units/${dset}/.done.score_units" ] || refuse_other_units "${dset}"
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
    local least=1
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
    [ -n "${pair_kinds}${benchmark_sets}" ] || return 0
    join_asides
    aside score_all_pairs
}

score_all_pairs() {
    [ -z "${pair_kinds}" ] || each score_pairs_of ${test_sets}
    [ -z "${benchmark_sets}" ] || score_benchmarks
}

score_pairs_of() { # score_pairs_of <set>
    local made=${dumpdir}/pairs/$1 dir=${exp}/slm/pairs/$1
    local -a genders=() held=()
    if [[ " ${pair_kinds} " == *" gender_switch "* ]] && [ -f "${datadir}/$1/spk2gender" ]; then
        genders=(--spk2gender "${datadir}/$1/spk2gender")
        held=("holds:${datadir}/$1/spk2gender")
    fi
    # shellcheck disable=SC2086  # options are words
    once "${made}/.done.make_pairs" "${aligned}/$1" ${pair_kinds} "${num_pairs}" \
        "${genders[@]}" "${held[@]}" ${pair_opts} -- \
        resumable "${made}" ${python} -m espnet_taste.bin.make_pairs --data_dir "${aligned}/$1" \
        --output_dir "${made}" --kinds ${pair_kinds} --num_pairs "${num_pairs}" \
        "${genders[@]}" ${pair_opts}
    once "${dir}/tokens/.done.encode" "${made}" "${exp}/taste" "${chosen[@]}" -- \
        resumable "${dir}/tokens" alone "${job_cmd}" "${dir}/tokens/encode.log" ${python} \
        -m espnet_taste.bin.encode --model "${exp}" --data_dir "${made}" \
        --output_dir "${dir}/tokens" --device "${device}" --max_excluded "${max_excluded}"
    once "${dir}/likelihood/.done.likelihood" "${dir}/tokens" "${exp}/slm" -- \
        resumable "${dir}/likelihood" \
        alone "${job_cmd}" "${dir}/likelihood/likelihood.log" ${python} \
        -m espnet_taste.bin.likelihood --model "${exp}" --device "${device}" \
        --tokens "${dir}/tokens/tokens.jsonl" --moments "${made}/moments" \
        --transcripts "$(written_by)" --output_dir "${dir}/likelihood" \
        --max_excluded "${max_excluded}"
    once "${dir}/.done.score_pairs" "${dir}/likelihood" "${made}" -- \
        ${python} -m espnet_taste.bin.score_pairs --pairs "${made}/pairs" \
        --likelihoods "${dir}/likelihood/likelihoods.jsonl" --output_dir "${dir}" \
        --excluded "${dir}"/{tokens,likelihood}/excluded.jsonl --max_skipped "${max_excluded}"
}

written_by() { # who wrote the words of the corpus
    local word before='' writer=${whisper}
    [ "${transcripts}" = asr ] || writer=given
    for word in ${asr_opts}; do
        [[ "${transcripts} ${before}" =~ ^asr\ --(whisper|asr_tag|asr_config)$ ]] \
            && writer=${word}
        before=${word}
    done
    echo "${writer}"
}

stage_score_slm() {
    local least=1
    join_asides score_all_pairs
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

# Scores that were not asked for may be of models that have since been trained again.
check_scores() {
    "${dry_run}" && return
    local checking=true dset system
    for dset in ${test_sets}; do
        if ! is_skipped score_topline; then
            score_audio original "${dset}"
            score_audio units_only "${dset}" --wav_scp "${exp}/units_only/audio/${dset}/wav.scp"
        fi
        for system in units_only $(trained_systems); do
            is_skipped score_tokenizers || score_tokenizer "${system}"
        done
        is_skipped score_slm || [ ! -e "${exp}/slm/.done" ] || score_slm "${dset}"
    done
}

has_slm() { # the spoken LM is optional: its stages may have been skipped, or stopped
    join_asides
    "${dry_run}" || [ -e "${exp}/slm/.done" ]
}

num_trained_on() { # num_trained_on <set>: how many of its utterances are in the training set
    comm -12 <(ids_of "${train_set}") <(ids_of "$1") | wc -l
}

ids_of() { # ids_of <set>
    cut -d ' ' -f 1 "${aligned}/$1/text" 2> /dev/null | sort
}

stage_report() {
    join_asides
    local name
    for name in slm ${systems}; do
        is_finished "${exp}/${name}" || log "${exp}/${name} was begun and is not finished; it" \
            "is left out"
    done
    check_scores
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
        shared=$(num_trained_on "${dset}")
        [ "${shared}" = 0 ] || rows+=(--meta "utterances of ${dset} that were trained on=${shared}")
        [ ! -f "${exp}/slm/pairs/${dset}/pairs.json" ] \
            || rows+=(--pairs "${dset}=${exp}/slm/pairs/${dset}/pairs.json")
        local heard=${exp}/slm/continuations/${dset}/scores/continuations.json
        [ ! -f "${heard}" ] || rows+=(--continuations "${dset}=${heard}")
    done
    local place words
    while read -r place words; do
        name=benchmarks
        [ "${place##*/}" = benchmarks ] || name=benchmarks.${words}
        [ ! -f "${place}/pairs.json" ] || rows+=(--pairs "${name}=${place}/pairs.json")
    done < <(benchmark_places)
    for dset in ${question_sets}; do
        local answers=${exp}/slm/questions/${dset}/answers.json
        [ ! -f "${answers}" ] || rows+=(--answers "${dset}=${answers}")
    done
    # shellcheck disable=SC2086  # several sets
    run ${python} -m espnet_taste.bin.report "${rows[@]}" "${folders[@]}" \
        --test_sets ${test_sets} --output_dir "${exp}" \
        --train_config "${exp}/taste/config.yaml" \
        --meta "corpus=${corpus}" --meta "transcripts=${transcripts}" \
        "${configs[@]}"
}

# in_place_of <mark> <command...>: which makes anew what another step has made
in_place_of() {
    rm -f "$1"
    "${@:2}"
}

stage_pack() {
    local marker=${exp}/.done.pack other=${exp}/.done.pack_tokenizer
    local -a parts=("${exp}/taste" "${exp}/slm") without=()
    if ! has_slm; then # another marker: a spoken LM that is trained later is packed too
        marker=${other} other=${exp}/.done.pack
        parts=("${exp}/taste")
        without=(--tokenizer_only) # of a stopped training there may be a checkpoint
    fi
    [ "${speaker_model}" = resemblyzer/ge2e ] || parts+=("${exp}/speaker")
    once "${marker}" "${parts[@]}" "${chosen[@]}" "holds:${exp}/vocoder/.done" -- \
        in_place_of "${other}" ${python} -m espnet_taste.bin.pack --exp_dir "${exp}" \
        --inference_model "${inference_model}" --output "${exp}/taste.zip" \
        "${without[@]}"
}
