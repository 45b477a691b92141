# One function per stage of taste.sh, and the three ways in which they run things.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

exp=${expdir}/${tag:-${corpus}}
raw=${dumpdir}/raw
aligned=${dumpdir}/aligned
features=${dumpdir}/features
all_sets=$(printf '%s\n' ${train_set} ${valid_set} ${test_sets} | awk '!seen[$0]++')
device=cpu
job_cmd=${train_cmd}
if "${gpu_inference}"; then
    device=cuda
    job_cmd="${cuda_cmd} --gpu 1"
fi

# --- how things are run -----------------------------------------------------

run() {
    if "${dry_run}"; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

# once <marker> <words that decide the result...> -- <command...>
# A finished step is skipped. One that was finished with other options, or on other
# inputs, is not overwritten: its successors may have been built on it.
once() {
    local marker=$1
    shift
    local -a identity=()
    while [ "$1" != -- ]; do
        identity+=("$1")
        shift
    done
    shift
    if "${dry_run}"; then
        run "$@"
        return
    fi
    local signature
    signature=$(signature_of "${identity[@]}")
    if [ -f "${marker}" ]; then
        [ "${signature}" != "$(cat "${marker}")" ] || return 0
        diff "${marker}" <(echo "${signature}") >&2 || true
        fail "$(dirname "${marker}") was made with what is marked '<' above;" \
            "remove it to make it again, or choose another --tag or --dumpdir"
    fi
    "$@"
    mkdir -p "$(dirname "${marker}")"
    echo "${signature}" > "${marker}.part"
    mv "${marker}.part" "${marker}"
}

signature_of() { # words, contents of YAML files, checksums of the steps before
    local word place
    for word in "$@"; do
        echo "${word}"
        case ${word} in
            *.yaml) cat "${word}" ;;
            */*)
                place=${word%%,*}
                [ -d "${place}" ] || place=$(dirname "${place}")
                echo "made by $(cat "${place}"/.done* 2> /dev/null | cksum)"
                ;;
        esac
    done
}

# jobs <data dir> <output dir> <module> <options...>
# Split the utterances over parallel jobs and merge what they wrote. With the variable
# key_subset, only the utterances of that file.
key_subset=
jobs() {
    once "$2/.done.$3" "$1" ${key_subset} "${@:3}" -- split_jobs "$@"
}

split_jobs() {
    local data=$1 output=$2 module=$3
    shift 3
    local parts=${output}/.parts.${module}
    ${python} -m espnet_taste.bin.split_keys --data_dir "${data}" \
        --num_jobs "${nj}" --output_dir "${parts}" ${key_subset:+--key_file "${key_subset}"}
    local num_jobs
    num_jobs=$(cat "${parts}/num_jobs")
    ${job_cmd} "JOB=1:${num_jobs}" "${parts}/log.JOB" \
        ${python} -m "espnet_taste.bin.${module}" --data_dir "${data}" \
        --key_file "${parts}/keys.JOB" --output_dir "${parts}/JOB" "$@" \
        || { show_error "${parts}"/log.*; return 1; }
    ${python} -m espnet_taste.bin.merge_jobs --parts_dir "${parts}" --output_dir "${output}"
}

show_error() { # the last lines of every log that tells of an error
    grep -l -i error "$@" | while read -r file; do
        echo "--- ${file}" >&2
        tail -n 15 "${file}" >&2
    done
    return 0
}

# train <name> <module> <config> <data of one set: function> <options...>
train() {
    local name=$1 module=$2 config=$3 data=$4 dir=${exp}/$1
    shift 4
    local -a options=(--config "${config_dir}/${config}" "$@")
    mapfile -t -O "${#options[@]}" options < <("${data}" train "${train_set}"; "${data}" valid "${valid_set}")
    once "${dir}/.done" "${options[@]}" -- launch "${dir}" "${module}" "${options[@]}"
}

launch() {
    local dir=$1 module=$2
    shift 2
    ${python} -m espnet2.bin.launch --cmd "${cuda_cmd} --name ${dir}/train.log" \
        --log "${dir}/train.log" --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
        --init_file_prefix "${dir}/.dist_init_" --multiprocessing_distributed true -- \
        ${python} -m "espnet_taste.bin.${module}" --resume true \
        --output_dir "${dir}" "$@" \
        || { show_error "${dir}/train.log"; return 1; }
}

files() { # files <train|valid> <shape file> <path,name,type>...
    echo "--$1_shape_file"
    echo "$2"
    local file
    for file in "${@:3}"; do
        echo "--$1_data_path_and_name_and_type"
        echo "${file}"
    done
}

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
    once "data/.done.${corpus}" "${corpus}" ${local_data_opts} -- \
        local/data.sh --corpus "${corpus}" ${local_data_opts}
}

stage_format_audio() {
    for dset in ${all_sets}; do
        jobs "data/${dset}" "${raw}/${dset}" format_audio \
            --min_s "${min_wav_duration}" --max_s "${max_wav_duration}" \
            --max_excluded "${max_excluded}"
    done
}

stage_align() {
    for dset in ${all_sets}; do
        # shellcheck disable=SC2086
        jobs "${raw}/${dset}" "${aligned}/${dset}" align --aligner "${aligner}" \
            --whisper "${whisper}" ${aligner_opts}
    done
}

stage_train_units() {
    once "${exp}/units/.done" "${config_dir}/${units_config}" "${aligned}/${train_set}" -- \
        ${python} -m espnet_taste.bin.train_units --config "${config_dir}/${units_config}" \
        --data_dir "${aligned}/${train_set}" --output_dir "${exp}/units"
}

stage_extract_features() {
    for dset in ${all_sets}; do
        jobs "${aligned}/${dset}" "${features}/${dset}" extract_units --units_dir "${exp}/units"
        jobs "${aligned}/${dset}" "${features}/${dset}" extract_speakers
        jobs "${aligned}/${dset}" "${features}/${dset}" extract_mel
        if "${encoder_states}"; then
            jobs "${aligned}/${dset}" "${features}/${dset}" extract_states \
                --config "${config_dir}/${taste_config}" --whisper "${whisper}" --device "${device}"
        fi
    done
}

stage_train_vocoder() {
    train vocoder unit_to_mel_train "${vocoder_config}" vocoder_data \
        --units_dir "${exp}/units"
}

train_tokenizer() { # train_tokenizer <name> <config> [<model to start from>]
    local init=()
    [ $# -lt 3 ] || init=(--init_from "${exp}/$3")
    # shellcheck disable=SC2086
    train "$1" tokenizer_train "$2" tokenizer_data --whisper "${whisper}" \
        --units_dir "${exp}/units" "${init[@]}" ${train_args}
}

stage_train_text_only() {
    train_tokenizer text_only "${text_only_config}"
}

stage_train_without_vq() {
    train_tokenizer without_vq "${without_vq_config}" "text_only/${inference_model}"
}

stage_train_taste() {
    once "${exp}/quantizer_start/.done" "${config_dir}/${taste_config}" "${exp}/without_vq" -- \
        ${python} -m espnet_taste.bin.start_quantizer --config "${config_dir}/${taste_config}" \
        --model_file "${exp}/without_vq/${inference_model}" \
        --data_dir "${aligned}/${train_set}" --features_dir "${features}/${train_set}" \
        --output "${exp}/quantizer_start/model.pth"
    train_tokenizer taste "${taste_config}" quantizer_start/model.pth
}

stage_train_controls() {
    train_tokenizer text_only_control "${text_only_control_config}" "text_only/${inference_model}"
    train_tokenizer without_vq_control "${without_vq_control_config}" "without_vq/${inference_model}"
}

stage_extract_codes() {
    for dset in ${all_sets}; do
        jobs "${aligned}/${dset}" "${exp}/codes/${dset}" extract_codes --device "${device}" \
            --model_file "${exp}/taste/${inference_model}" --features_dir "${features}/${dset}"
    done
}

stage_train_slm() {
    # shellcheck disable=SC2086
    train slm slm_train "${slm_config}" slm_data --llm "${llm}" \
        --tokenizer_file "${exp}/taste/${inference_model}" ${slm_args}
}

systems="text_only without_vq taste text_only_control without_vq_control"

# Synthesis and judging cost more than all other scores, so a large test set may be
# represented by utterances spread evenly over it.
choose_audio_keys() { # choose_audio_keys <set>
    key_subset=${exp}/audio_keys/$1
    "${dry_run}" && return
    [ ! -s "${key_subset}" ] || return 0
    mkdir -p "${exp}/audio_keys"
    if [ "$(wc -l < "${aligned}/$1/wav.scp")" -gt "${max_audio_utts}" ]; then
        utils/subset_scp.pl "${max_audio_utts}" "${aligned}/$1/wav.scp"
    else
        cat "${aligned}/$1/wav.scp"
    fi | cut -d ' ' -f 1 > "${key_subset}.part"
    mv "${key_subset}.part" "${key_subset}"
}

stage_reconstruct() {
    local -a options=(--config "${config_dir}/${decode_config}" --device "${device}"
        --vocoder_dir "${exp}/vocoder")
    for dset in ${test_sets}; do
        choose_audio_keys "${dset}"
        jobs "${aligned}/${dset}" "${exp}/units_only/audio/${dset}" reconstruct \
            --units_only "${options[@]}" --features_dir "${features}/${dset}"
        for system in $(trained_systems); do
            jobs "${aligned}/${dset}" "${exp}/${system}/audio/${dset}" reconstruct \
                "${options[@]}" --features_dir "${features}/${dset}" \
                --model_file "${exp}/${system}/${inference_model}"
        done
    done
    key_subset=
}

trained_systems() { # the tokenizers that exist: controls may have been skipped
    for system in ${systems}; do
        if [ -e "${exp}/${system}/${inference_model}" ] || "${dry_run}"; then
            echo "${system}"
        fi
    done
}

stage_continue_speech() {
    for dset in ${test_sets}; do
        jobs "${aligned}/${dset}" "${exp}/slm/continuations/${dset}" continue_speech \
            --config "${config_dir}/${decode_config}" --device "${device}" \
            --slm_file "${exp}/slm/${inference_model}" --codes_dir "${exp}/codes/${dset}" \
            --tokenizer_file "${exp}/taste/${inference_model}" \
            --features_dir "${features}/${dset}" --vocoder_dir "${exp}/vocoder"
    done
}

score() { # score <system> <set> <kind> <options...>
    local system=$1 dset=$2 kind=$3
    shift 3
    local dir=${exp}/${system}/eval/${dset}
    once "${dir}/.done.${kind}" "$@" "${aligned}/${dset}/wav.scp" -- \
        ${python} -m espnet_taste.bin.score --kind "${kind}" --system "${system}" \
        --set "${dset}" --data_dir "${aligned}/${dset}" --output_dir "${dir}" "$@"
}

score_audio() { # score_audio <system> <set> <options...>
    score "$1" "$2" audio --key_file "${exp}/audio_keys/$2" \
        --reference_cache "${exp}/original/eval/$2/judge.jsonl" "${@:3}"
}

stage_score() {
    for dset in ${test_sets}; do
        score_audio original "${dset}"
        score_audio units_only "${dset}" \
            --wav_scp "${exp}/units_only/audio/${dset}/wav.scp"
        score units_only "${dset}" codes --units_scp "${features}/${dset}/units.scp" \
            --train_config "${exp}/taste/config.yaml"
        for system in $(trained_systems); do
            score_tokenizer "${system}" "${dset}"
        done
        score taste "${dset}" codes --codes_scp "${exp}/codes/${dset}/codes.scp" \
            --train_config "${exp}/taste/config.yaml"
        jobs "${aligned}/${dset}" "${exp}/slm/scores/${dset}" score_slm \
            --slm_file "${exp}/slm/${inference_model}" --codes_dir "${exp}/codes/${dset}" \
            --device "${device}"
        score slm "${dset}" slm --slm_scores "${exp}/slm/scores/${dset}/slm_scores.jsonl" \
            --codes_scp "${exp}/codes/${dset}/codes.scp" \
            --train_codes_scp "${exp}/codes/${train_set}/codes.scp" \
            --train_config "${exp}/taste/config.yaml"
    done
}

score_tokenizer() { # score_tokenizer <system> <set>
    jobs "${aligned}/$2" "${exp}/$1/units/$2" score_units \
        --model_file "${exp}/$1/${inference_model}" \
        --features_dir "${features}/$2" --device "${device}"
    score "$1" "$2" units --unit_scores "${exp}/$1/units/$2/unit_scores.jsonl"
    score_audio "$1" "$2" --wav_scp "${exp}/$1/audio/$2/wav.scp" \
        --generation_report "${exp}/$1/audio/$2/report.jsonl"
}

stage_report() {
    local -a rows=(--system "original=${exp}/original" --system "units=${exp}/units_only"
        --system "slm=${exp}/slm")
    local -A role=([text_only]=text_only [without_vq]=no_quantizer [taste]=taste
        [text_only_control]=text_only_control [without_vq_control]=no_quantizer_control)
    for system in $(trained_systems); do
        rows+=(--system "${role[${system}]}=${exp}/${system}")
    done
    local -a folders=()
    for dset in ${all_sets}; do
        folders+=(--data_dir "${raw}/${dset}" --data_dir "${aligned}/${dset}")
    done
    # shellcheck disable=SC2086  # several sets
    run ${python} -m espnet_taste.bin.report "${rows[@]}" "${folders[@]}" \
        --test_sets ${test_sets} --output_dir "${exp}" \
        --train_config "${exp}/taste/config.yaml" --meta "corpus=${corpus}" \
        --config "${config_dir}/${taste_config}" --config "${config_dir}/${slm_config}"
}

stage_pack() {
    once "${exp}/.done.pack" "${exp}/taste" "${exp}/slm" -- \
        ${python} -m espnet_taste.bin.pack --exp_dir "${exp}" \
        --inference_model "${inference_model}" --output "${exp}/taste.zip"
}
