# By what a step of taste.sh is known again, and what is refused as another one's work.
# shellcheck shell=bash disable=SC2154  # the options are variables of taste.sh

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

# need_finished <words that decide...>: refuse to build on what was begun and not finished,
# as a training of which a few epochs have left a model
need_finished() {
    local word place
    for word in "$@"; do
        [[ ${word} == */* && ${word} != holds:* ]] || continue
        place=${word%%,*}
        [ -d "${place}" ] || place=$(dirname "${place}")
        is_finished "${place}" || fail "${place} was begun and is not finished; run what" \
            "makes it to its end first (without --stage, finished steps are skipped)"
    done
}

is_finished() { # is_finished <folder>: or at least nothing that this recipe began?
    [ ! -f "$1/.begun" ] || [ -n "$(find "$1" -maxdepth 1 -name '.done*' ! -name '*.part')" ]
}
