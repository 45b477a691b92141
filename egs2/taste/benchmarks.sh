# Stages of taste.sh that judge the spoken LM as others do: its continuations, pairs of
# published benchmarks, answers to spoken questions. All are off by default.
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

score_benchmarks() {
    each score_benchmark_halves ${benchmark_sets}
    local place
    local -a places
    mapfile -t places < <(benchmark_places)
    for place in "${places[@]}"; do
        score_benchmarks_of "${place% *}" "${place##* }"
    done
}

# benchmark_places: a folder for every source of words, whose scores cannot be compared
benchmark_places() {
    local dir=${exp}/slm/benchmarks words
    local -a sources
    mapfile -t sources < <(for dset in ${benchmark_sets}; do words_of "${dset}"; done | sort -u)
    if [ ${#sources[@]} -le 1 ]; then
        echo "${dir} ${sources[*]}"
        return
    fi
    for words in "${sources[@]}"; do
        echo "${dir}/words.${words} ${words}"
    done
}

words_of() { # words_of <set>: asr or given
    local word words=
    for word in ${benchmark_transcripts}; do
        case ${word} in
            "$1="*) echo "${word#*=}" && return ;;
            *=*) ;;
            *) words=${word} ;;
        esac
    done
    # A recogniser would repair the words that are none, and so the wrong halves.
    if [ -z "${words}" ] && [ -f "${datadir}/$1/text" ] \
        && awk -F '\t' '$2 ~ /^s(WUGGY|BLIMP)/ { n++ } END { exit !n }' \
            "${datadir}/$1/pairs" 2>/dev/null; then
        words=given
    fi
    echo "${words:-asr}"
}

# Of one source all at once: two columns of the TASTE paper are means over several
# benchmarks.
score_benchmarks_of() { # score_benchmarks_of <folder of the results> <asr or given>
    local dir=${exp}/slm/benchmarks
    local -a tables=() scores=() held=() excluded=()
    for dset in ${benchmark_sets}; do
        [ "$(words_of "${dset}")" = "$2" ] || continue
        held+=("holds:${datadir}/${dset}/pairs")
        tables+=("${datadir}/${dset}/pairs")
        scores+=("${dir}/${dset}/likelihood/likelihoods.jsonl")
        excluded+=("${dir}/${dset}"/{tokens,likelihood}/excluded.jsonl)
    done
    once "$1/.done.score_pairs" "${scores[@]}" "${tables[@]}" "${held[@]}" -- \
        ${python} -m espnet_taste.bin.score_pairs --pairs "${tables[@]}" \
        --likelihoods "${scores[@]}" --excluded "${excluded[@]}" --output_dir "$1" \
        --max_skipped "${max_excluded}"
}

# encode_words <set> <folder>: tokens of a set of others, by whom its words are to be
encode_words() {
    local made=${datadir}/$1 words=asr
    if [ "$(words_of "$1")" = given ]; then
        [ -f "${made}/text" ] || "${dry_run}" \
            || fail "${made} has no text; --benchmark_transcripts asr, or $1=asr"
        words=auto
    fi
    once "$2/.done.encode" "${made}" "${words}" "${exp}/taste" "${chosen[@]}" -- \
        resumable "$2" alone "${job_cmd}" "$2/encode.log" ${python} \
        -m espnet_taste.bin.encode --model "${exp}" --data_dir "${made}" \
        --output_dir "$2" --device "${device}" --transcripts "${words}" \
        --max_excluded "${max_excluded}"
}

writer_of() { # writer_of <set>: the name of who wrote its words
    [ "$(words_of "$1")" = given ] && echo given || echo "${whisper}"
}

score_benchmark_halves() { # score_benchmark_halves <set>
    local made=${datadir}/$1 dir=${exp}/slm/benchmarks/$1
    encode_words "$1" "${dir}/tokens"
    local -a around=() held=()
    for name in moments text_before text_after; do
        held+=("holds:${made}/${name}")
        [ ! -f "${made}/${name}" ] || around+=("--${name}" "${made}/${name}")
    done
    once "${dir}/likelihood/.done.likelihood" "${dir}/tokens" "${exp}/slm" \
        "${held[@]}" -- \
        resumable "${dir}/likelihood" \
        alone "${job_cmd}" "${dir}/likelihood/likelihood.log" ${python} \
        -m espnet_taste.bin.likelihood --model "${exp}" --device "${device}" \
        --tokens "${dir}/tokens/tokens.jsonl" "${around[@]}" \
        --transcripts "$(writer_of "$1")" --output_dir "${dir}/likelihood" \
        --max_excluded "${max_excluded}"
}

stage_score_answers() {
    [ -n "${question_sets}" ] || return 0
    join_asides
    [ -z "${question_shots}" ] \
        || encode_words "${question_shots}" "${exp}/slm/questions/${question_shots}/tokens"
    each score_answers_to ${question_sets}
}

# What the spoken LM writes is judged, not its audio.
score_answers_to() { # score_answers_to <set>
    local made=${datadir}/$1 dir=${exp}/slm/questions/$1 examples=none
    local -a shots=() benchmark=()
    if [ -n "${question_shots}" ]; then
        examples=${exp}/slm/questions/${question_shots}/tokens/tokens.jsonl
        shots=(--shots "${examples}")
    fi
    case $1 in # whose published values stand beside ours
        llama_questions) benchmark=(--benchmark LLaMA-Questions) ;;
        web_questions) benchmark=(--benchmark Web-Questions) ;;
    esac
    encode_words "$1" "${dir}/tokens"
    # A question without an answer is a wrong one, whatever share these are.
    # shellcheck disable=SC2086  # options are words
    once "${dir}/answers/.done.complete" "${dir}/tokens" "${exp}/slm" "${shots[@]}" \
        ${question_opts} -- \
        resumable "${dir}/answers" alone "${job_cmd}" "${dir}/answers/complete.log" \
        ${python} -m espnet_taste.bin.complete --model "${exp}" --device "${device}" \
        --tokens "${dir}/tokens/tokens.jsonl" --output_dir "${dir}/answers" --top_p 0 \
        --with_prompt false --max_excluded 1 "${shots[@]}" ${question_opts}
    once "${dir}/.done.score_answers" "${dir}/answers" "holds:${made}/answers" -- \
        ${python} -m espnet_taste.bin.score_answers --answers "${made}/answers" \
        --tokens "${dir}/answers/tokens.jsonl" --output_dir "${dir}" \
        --shots "${examples}" --model "$(basename "${exp}")" \
        --transcripts "$(writer_of "$1")" "${benchmark[@]}"
}
