# How the stages of taste.sh run things: once, each, in parallel jobs, as trainings.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

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
# inputs, is not overwritten: its successors may have been built on it. Two runs never
# work on the same step: what a killed run has left running still holds the lock.
# The command sees the signature, for begin. Among the words, holds:<file> stands for
# what is in a table of a user's, whether or not there is one. With the variable checking,
# nothing is made: what is finished is accepted or refused, and what is not passed over.
checking=false
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
    local signature lock locked=0
    signature=$(signature_of "${identity[@]}")
    # Without the lock, which a folder that may only be read cannot hold.
    if [ -f "${marker}" ] && is_made_so "${marker}"; then
        return
    fi
    if "${checking}"; then
        [ ! -f "${marker}" ] || refuse_made "${marker}" "$@"
        return 0
    fi
    mkdir -p "$(dirname "${marker}")"
    exec {lock}> "$(dirname "${marker}")/.lock$(basename "${marker}")"
    flock --nonblock "${lock}" || locked=$?
    if [ "${locked}" = 1 ]; then
        log "$(dirname "${marker}"): waiting for another run that works on it"
        flock "${lock}"
    elif [ "${locked}" != 0 ]; then # as on Lustre that is mounted without flock
        log "$(dirname "${marker}"): files cannot be locked here; let no other run work on it"
    fi
    signature=$(signature_of "${identity[@]}")
    if [ -f "${marker}" ]; then
        exec {lock}>&-
        ! is_made_so "${marker}" || return 0
        refuse_made "${marker}" "$@"
    fi
    need_finished "${identity[@]}"
    "$@"
    echo "${signature}" > "${marker}.part"
    mv "${marker}.part" "${marker}"
    exec {lock}>&-
}

# resumable <folder> <command...>: one that goes on with what a killed run has left there
resumable() {
    begin "$1" "$(find "$1" -type f ! -name '.lock*' ! -name '.begun*' ! -name '*.log' \
        ! -name .settings.jsonl ! -path '*/q/*' -print -quit 2> /dev/null)"
    "${@:2}"
}

# each <function> <words...>: call the function with every word, at_once of them at a
# time, with what runs aside; a failure stops the stage after those that have begun.
workers=()
each() {
    local function=$1 word pid failed=false
    shift
    local -a pids=()
    for word in "$@"; do
        # A process group of its own: what runs behind does not hear Ctrl-C, nor may it
        # read from a terminal. What runs aside has one.
        ((BASH_SUBSHELL)) || set -m
        "${function}" "${word}" < /dev/null &
        set +m
        pids+=($!)
        workers+=($!)
        while [ ${#pids[@]} -gt 0 ] && [ ${#pids[@]} -ge $((at_once - $(num_aside))) ]; do
            wait "${pids[0]}" || failed=true
            pids=("${pids[@]:1}")
            ! "${failed}" || break 2
        done
    done
    for pid in "${pids[@]}"; do
        wait "${pid}" || failed=true
    done
    workers=()
    ! "${failed}"
}

# aside <function> <words...>: with at_once above 1, run beside the stages that follow,
# one after the other, or at once if in_turn is false. A stage that needs what they make
# calls join_asides first.
in_turn=true
asides=()
aside_functions=()
aside() {
    if [ "${at_once}" -le 1 ] || "${dry_run}"; then
        "$@"
        return
    fi
    local -a before=("${asides[@]: -1}")
    set -m # a process group of its own, so that stop_others reaches all of it
    (
        [ ${#before[@]} -eq 0 ] || ! "${in_turn}" || tail --pid="${before[0]}" -f /dev/null
        "$@"
    ) < /dev/null &
    set +m
    asides+=($!)
    aside_functions+=("$1")
}

num_aside() { # how many are at work beside the stages
    local pid count=0
    for pid in "${asides[@]}"; do
        ! kill -0 "${pid}" 2> /dev/null || count=$((count + 1))
    done
    echo "${count}"
}

# begin_stage <number>: note from where to resume, so that what still runs aside is gone
# on with, too; finished stages are passed over
resume_from=
begin_stage() {
    works_aside || resume_from=$1
}

works_aside() { # is anything at work beside the stages?
    [ "$(num_aside)" -gt 0 ]
}

join_asides() { # join_asides [<functions that may run on>...]
    local i failed=false
    for i in "${!asides[@]}"; do
        [[ " $* " != *" ${aside_functions[i]} "* ]] || continue
        wait "${asides[i]}" || failed=true
        unset "asides[i]"
    done
    ! "${failed}" || fail "what ran beside the stages has failed; see above"
}

stop_others() { # what runs aside, and the workers of each
    local pid
    for pid in "${asides[@]}" "${workers[@]}"; do
        kill -- "-${pid}" 2> /dev/null || true
    done
}

behind=() # in front of jobs, to let trainings that run beside them go first
# jobs <data dir> <output dir> <module> <options...>
# Split the utterances over parallel jobs and merge what they wrote. With the variable
# key_subset, only the utterances of that file. What is in the files of the variable held
# decides as well.
key_subset=
held=()
least=1 # utterances of a job: starting one takes seconds
jobs_marker= # where to note that it is done, if not in the output folder
jobs() {
    local -a keys=()
    [ -z "${key_subset}" ] || keys=("${key_subset}" "holds:${key_subset}")
    once "${jobs_marker:-$2/.done.$3}" "$1" "${keys[@]}" "${@:3}" "${held[@]}" -- \
        split_jobs "$@"
}

split_jobs() {
    local data=$1 output=$2 module=$3
    shift 3
    local parts=${output}/.parts.${module} begun divide=${nj} fewest=${least}
    begun=$(find "${parts}" -mindepth 2 -type f ! -path '*/q/*' -print -quit 2> /dev/null || true)
    begin "${parts}" "${begun}"
    await_queue "${parts}"
    # A job goes on with its own work: divided otherwise, most would be done again.
    if [ -n "${begun}" ] && [ -s "${parts}/num_jobs" ]; then
        divide=$(cat "${parts}/num_jobs") fewest=1
        [ "${divide}" -eq "$((10#${nj}))" ] || log "${parts}: goes on as ${divide} jobs, as it" \
            "was begun; remove it to divide the work anew"
    fi
    ${python} -m espnet_taste.bin.split_keys --data_dir "${data}" \
        --num_jobs "${divide}" --least "${fewest}" --output_dir "${parts}" \
        ${key_subset:+--key_file "${key_subset}"}
    # Only what takes a device is given one: of GPUs there are fewer than of CPUs.
    local num_jobs place launcher=${train_cmd}
    [[ " $* " != *" --device "* ]] || launcher=${job_cmd}
    # Clusters show a job its own GPU alone; with run.pl each would take the first of all.
    local -a options=("$@")
    for place in "${!options[@]}"; do
        [ "${launcher%% *} ${options[place]}" != "run.pl cuda" ] \
            || options[place]="cuda:\$(((JOB-1)%$((10#${ngpu} + !10#${ngpu}))))"
    done
    num_jobs=$(cat "${parts}/num_jobs")
    if [ "${launcher%% *}" = run.pl ] && [ "${num_jobs}" -gt "$((10#${nj}))" ]; then
        launcher+=" --max-jobs-run $((10#${nj}))"
    fi
    rm -f "${parts}"/log.* # of more jobs, in an earlier run
    "${behind[@]}" ${launcher} "JOB=1:${num_jobs}" "${parts}/log.JOB" \
        ${python} -m "espnet_taste.bin.${module}" --data_dir "${data}" \
        --key_file "${parts}/keys.JOB" --output_dir "${parts}/JOB" "${options[@]}" \
        || { show_error "${parts}"/log.*; return 1; }
    ${python} -m espnet_taste.bin.merge_jobs --parts_dir "${parts}" --output_dir "${output}"
}

# alone <launcher> <log> <command...>: one process where jobs run, which may have the GPU
# or the memory that this machine lacks, from which they are submitted
alone() {
    local launcher=$1
    shift
    if [ "${launcher%% *}" = run.pl ]; then
        "${@:2}"
        return
    fi
    await_queue "$(dirname "$1")"
    ${launcher} "$@" || { show_error "$1"; return 1; }
}

# await_queue <folder of logs>: what a run has submitted goes on without it, holds no lock,
# and would write to the same files as what is submitted next.
await_queue() {
    local id told
    local -a ids=()
    mapfile -t ids < <(sed -n -E \
        -e 's/.*(Submitted batch job|Your job(-array)?) ([0-9]+).*/\3/p' \
        -e '/^[0-9]+(\[\])?\.[A-Za-z][A-Za-z0-9.-]*$/p' "$1"/q/* 2> /dev/null) # PBS: id alone
    for id in "${ids[@]}"; do
        told=false
        while is_queued "${id}"; do
            "${told}" || log "$1: waiting for job ${id}, which an earlier run submitted;" \
                "it may be cancelled (scancel or qdel)"
            told=true
            sleep 10
        done
    done
}

is_queued() { # is_queued <job of the cluster>
    case ${cmd_backend:-local} in
        slurm) [ -n "$(squeue --noheader --jobs "$1" 2> /dev/null)" ] ;;
        sge) qstat -j "$1" > /dev/null 2>&1 ;;
        pbs) qstat -t "$1" > /dev/null 2>&1 ;; # as utils/pbs.pl asks
        *) false ;;
    esac
}

show_error() { # show_error <logs...>: the last lines of the first whose command failed
    local file count=0
    for file in "$@"; do
        # As run.pl, or the launchers of clusters, end the log of one that did not.
        if [ ! -f "${file}" ] || tail -n 1 "${file}" | grep -q -E '\(code 0\)|status 0$'; then
            continue
        fi
        count=$((count + 1))
        if [ "${count}" -le 3 ]; then
            echo "--- ${file}" >&2
            grep -v -E '^#( |$)' "${file}" | tail -n 15 >&2 || true
        fi
    done
    [ "${count}" -le 3 ] || echo "--- and $((count - 3)) more" >&2
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
    begin "${dir}" "$(find "${dir}" -maxdepth 1 -name checkpoint.pth 2> /dev/null)"
    await_queue "${dir}"
    ${python} -m espnet2.bin.launch --cmd "${cuda_cmd} --name $(basename "${dir}")" \
        --log "${dir}/train.log" --ngpu "${ngpu}" --num_nodes "${num_nodes}" \
        --init_file_prefix "${dir}/.dist_init_" --multiprocessing_distributed true -- \
        ${python} -m "espnet_taste.bin.${module}" --resume true \
        --output_dir "${dir}" "$@" \
        || { show_error "${dir}/train.log"; return 1; }
    # The same options give another model, of which nothing is made yet.
    signature+=$'\n'"trained $(date +%s.%N)"
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
