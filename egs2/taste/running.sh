# How the stages of taste.sh run things: once, each, in parallel jobs, as trainings.
# shellcheck shell=bash

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
# what is in a table of a user's, whether or not there is one.
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
    "$@"
    echo "${signature}" > "${marker}.part"
    mv "${marker}.part" "${marker}"
    exec {lock}>&-
}

# is_made_so <mark>: by the step of the signature?
is_made_so() {
    [ "${signature}" != "$(cat "$1")" ] || return 0
    local made told
    made=$(deciding "$(share_left_out <<< "${signature}")" < "$1")
    # Older marks do not tell what tables of a user's held, or of fewer tables.
    for told in '' '/^holds .*\//d' '/^holds /d'; do
        [ "$(sed "${told}" <<< "${signature}" | deciding 1)" != "${made}" ] || return 0
    done
    return 1
}

# deciding <share> < <signature>: what makes it another step's. Not so the path of a YAML
# file, whose settings follow it, nor settings that the step does not read: older marks have
# more. Nor the device, nor a share that may be left out, up to the given one: it decides
# only whether what was made is accepted, and a larger one is what that error advises. When
# a model was trained is told for later steps, to which the mark is an input.
deciding() {
    awk -v keys="${yaml_keys}" -v most="$1" '
        /^trained / { next }
        /^--/ { chosen = 0 }
        /^--max_excluded$/ { getline share; next }
        /^--max_excluded=/ { share = substr($0, 16); next }
        /^--device$/ { getline; next }
        chosen && /^[^ -]/ { key = $0; sub(/:.*/, "", key)
                             wanted = index(" " keys " ", " " key " ") }
        chosen && !wanted { next }
        /^[^ :-][^ :]*\.yaml$/ { chosen = keys != ""; wanted = 0; next }
        { print }
        END { if (share + 0 > most + 0) print "--max_excluded " share }'
}

share_left_out() { # share_left_out < <signature>: the last one, which counts
    awk '/^--max_excluded$/ { getline share }
        /^--max_excluded=/ { share = substr($0, 16) }
        END { print share }'
}

# begin <folder> <what a killed run has left in it to go on with, if anything>
# Only the step that began it may go on with it: with other options or on other inputs
# half would be of one kind and half of the other. What has no mark is taken on trust.
begin() {
    local begun=$1/.begun
    if [ -n "$2" ] && [ -f "${begun}" ] \
        && [ "$(deciding 1 <<< "${signature}")" != "$(deciding 1 < "${begun}")" ]; then
        refuse "$1" begun "${begun}"
    fi
    mkdir -p "$1"
    echo "${signature}" > "${begun}.part"
    mv "${begun}.part" "${begun}"
}

# resumable <folder> <command...>: one that goes on with what a killed run has left there
resumable() {
    begin "$1" "$(find "$1" -type f ! -name '.lock*' ! -name '.begun*' ! -name '*.log' \
        ! -name .settings.jsonl ! -path '*/q/*' -print -quit 2> /dev/null)"
    "${@:2}"
}

# refuse_made <marker> <command...>: name what of the step's must go, and no other's work
refuse_made() {
    local made parts=
    made=$(dirname "$1")
    ! is_shared "$1" || made=$1
    # With the mark gone alone, jobs would go on with what they have left elsewhere.
    if [ "$2" = split_jobs ] && [[ $4/ != "${made}"/* ]]; then
        parts=$4/.parts.$5
    fi
    refuse "${made}" made "$1" "${parts}"
}

is_shared() { # is_shared <marker>: have other steps their work in its folder, too?
    local folder
    folder=$(dirname "$1")
    # By its name, the mark of a whole folder: all that is in there was made of it.
    [ "$(basename "$1")" != .done ] || return 1
    [[ " ${datadir} ${exp} " == *" ${folder} "* ]] \
        || [ -n "$(find "${folder}/" -name '.done*' ! -name '*.part' ! -samefile "$1" \
            -print -quit)" ]
}

# refuse <what> <made|begun> <file of the signature with which it was> [<what else goes>]
refuse() {
    local elsewhere=--tag share=1
    case $1 in
        "${datadir}"/*) elsewhere="--datadir, --dumpdir and --tag" ;;
        "${dumpdir}"/*) elsewhere="--dumpdir and --tag" ;;
    esac
    [ "$2" = begun ] || share=$(share_left_out <<< "${signature}")
    diff <(deciding "${share}" < "$3") <(deciding 1 <<< "${signature}") >&2 || true
    fail "$1 was $2 with what is marked '<' above;" \
        "remove it${4:+ and $4} to make it again, or choose another ${elsewhere}"
}

signature_of() { # words, settings in YAML files, checksums of the steps before
    local word place
    for word in "$@"; do
        if [[ ${word} == holds:* ]]; then
            word=${word#holds:}
            echo "holds ${word} $(cat "${word}" 2> /dev/null | cksum)"
            continue
        fi
        echo "${word}"
        case ${word} in
            *.yaml) settings_of "${word}" ;;
            */*)
                place=${word%%,*}
                [ -d "${place}" ] || place=$(dirname "${place}")
                echo "made by $(cat "${place}"/.done* 2> /dev/null | cksum)"
                compgen -G "${place}/.done*" > /dev/null || tables_of "${place}"
                ;;
        esac
        if [[ ${word%%/*} == *=* ]]; then # as --set train=one,two of local/data.sh
            while read -r place; do
                tables_of "${place}" "${place}/"
            done < <(tr , '\n' <<< "${word#*=}")
        fi
    done
}

tables_of() { # tables_of <data folder, which no step has marked as its own> [<prefix>]
    local table
    for table in wav.scp segments text utt2spk; do
        [ ! -f "$1/${table}" ] || echo "holds ${2:-}${table} $(cksum < "$1/${table}")"
    done
}

# settings_of <YAML file>: without comments, which decide nothing. With the variable
# yaml_keys, only those top-level keys: a step that reads two settings of a training's
# file is not another step when the training gets more epochs.
yaml_keys=
settings_of() {
    awk -v keys="${yaml_keys}" '
        { sub(/(^|[ \t]+)#.*/, "") }
        /^[^ -]/ { key = $0; sub(/:.*/, "", key)
                   wanted = keys == "" || index(" " keys " ", " " key " ") }
        wanted && /[^ \t]/' "$1"
}

# each <function> <words...>: call the function with every word, at_once of them at a
# time; a failure stops the stage after those that have begun.
each() {
    local function=$1 word pid failed=false
    shift
    local -a pids=()
    for word in "$@"; do
        "${function}" "${word}" &
        pids+=($!)
        if [ ${#pids[@]} -ge "${at_once}" ]; then
            wait "${pids[0]}" || failed=true
            pids=("${pids[@]:1}")
            ! "${failed}" || break
        fi
    done
    for pid in "${pids[@]}"; do
        wait "${pid}" || failed=true
    done
    ! "${failed}"
}

# aside <function> <words...>: with at_once above 1, run beside the stages that follow,
# one after the other. A stage that needs what they make calls join_asides first.
asides=()
aside_functions=()
aside() {
    if [ "${at_once}" -le 1 ] || "${dry_run}"; then
        "$@"
        return
    fi
    local -a before=("${asides[@]: -1}")
    set -m # a process group of its own, so that stop_asides reaches all of it
    (
        [ ${#before[@]} -eq 0 ] || tail --pid="${before[0]}" -f /dev/null
        "$@"
    ) &
    set +m
    asides+=($!)
    aside_functions+=("$1")
}

works_aside() { # is anything at work beside the stages?
    local pid
    for pid in "${asides[@]}"; do
        ! kill -0 "${pid}" 2> /dev/null || return 0
    done
    return 1
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

stop_asides() {
    local pid
    for pid in "${asides[@]}"; do
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
    local parts=${output}/.parts.${module}
    begin "${parts}" "$(find "${parts}" -mindepth 2 -type f -print -quit 2> /dev/null)"
    await_queue "${parts}"
    ${python} -m espnet_taste.bin.split_keys --data_dir "${data}" \
        --num_jobs "${nj}" --output_dir "${parts}" ${key_subset:+--key_file "${key_subset}"}
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
