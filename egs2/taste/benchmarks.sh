# Stages of taste.sh that judge the spoken LM as others do: its continuations, and pairs
# of published benchmarks. Both are off by default.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

stage_score_continuations() {
    "${continuation_scores}" || return 0
    each score_continuations_of ${test_sets}
}

score_continuations_of() { # score_continuations_of <set>
    local dir=${exp}/slm/continuations/$1
    # shellcheck disable=SC2086  # options are words
    once "${dir}/scores/.done" "${dir}" "${judge_opts[@]}" ${continuation_opts} -- \
        alone "${job_cmd}" "${dir}/scores/score.log" ${python} \
        -m espnet_taste.bin.score_continuations --wav_scp "${dir}/wav.scp" \
        --prompts "${dir}/report.jsonl" --output_dir "${dir}/scores" \
        --device "${device}" "${judge_opts[@]}" ${continuation_opts}
}

# All at once: two columns of the TASTE paper are means over several benchmarks.
score_benchmarks() {
    local dir=${exp}/slm/benchmarks
    each score_benchmark_halves ${benchmark_sets}
    local -a tables=() scores=() held=()
    for dset in ${benchmark_sets}; do
        held+=("holds:${datadir}/${dset}/pairs")
        tables+=("${datadir}/${dset}/pairs")
        scores+=("${dir}/${dset}/likelihood/likelihoods.jsonl")
    done
    once "${dir}/.done.score_pairs" "${scores[@]}" "${tables[@]}" "${held[@]}" -- \
        ${python} -m espnet_taste.bin.score_pairs --pairs "${tables[@]}" \
        --likelihoods "${scores[@]}" --output_dir "${dir}" --max_skipped "${max_excluded}"
}

score_benchmark_halves() { # score_benchmark_halves <set>
    local made=${datadir}/$1 dir=${exp}/slm/benchmarks/$1 words=asr heard_by=${whisper}
    if [ "${benchmark_transcripts}" = given ]; then
        [ -f "${made}/text" ] || "${dry_run}" \
            || fail "${made} has no text; --benchmark_transcripts asr"
        words=auto heard_by=given
    fi
    local -a around=() held=()
    for name in moments text_before text_after; do
        held+=("holds:${made}/${name}")
        [ ! -f "${made}/${name}" ] || around+=("--${name}" "${made}/${name}")
    done
    once "${dir}/tokens/.done.encode" "${made}" "${words}" "${exp}/taste" "${chosen[@]}" -- \
        resumable "${dir}/tokens" alone "${job_cmd}" "${dir}/tokens/encode.log" ${python} \
        -m espnet_taste.bin.encode --model "${exp}" --data_dir "${made}" \
        --output_dir "${dir}/tokens" --device "${device}" --transcripts "${words}" \
        --max_excluded "${max_excluded}"
    once "${dir}/likelihood/.done.likelihood" "${dir}/tokens" "${exp}/slm" \
        "${held[@]}" -- \
        resumable "${dir}/likelihood" \
        alone "${job_cmd}" "${dir}/likelihood/likelihood.log" ${python} \
        -m espnet_taste.bin.likelihood --model "${exp}" --device "${device}" \
        --tokens "${dir}/tokens/tokens.jsonl" "${around[@]}" \
        --transcripts "${heard_by}" --output_dir "${dir}/likelihood" \
        --max_excluded "${max_excluded}"
}
