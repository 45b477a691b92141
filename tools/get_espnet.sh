#!/usr/bin/env bash
# Print the path of an ESPnet source tree (recipe tools, mini_an4), fetching it once.
#
# ESPNET_ROOT names a tree of your own; otherwise ESPnet's source distribution is
# downloaded by pip, with pip's own index, proxy and certificate settings.
set -euo pipefail
caller=${PWD} # a relative ESPNET_ROOT is meant from here
cd "$(dirname "$0")/.."

version=202611
sha256=eb5816c4d2e4a18eaa2afacc2f8cf74f93e5534dec0fdcee0b2c89b6f7ddd1fd
root="${PWD}/.espnet"
download="${PWD}/.espnet.download"

check() { # <root>: usable? Says what is missing if not. Bash only: it runs every time.
    local name
    for name in utils/parse_options.sh scripts/audio/format_wav_scp.sh \
        pyscripts/audio/format_wav_scp.py; do
        if [ ! -f "$1/egs2/TEMPLATE/asr1/${name}" ]; then
            echo "get_espnet: $1 has no egs2/TEMPLATE/asr1/${name}"
            return 1
        fi
    done
}

if [ -n "${ESPNET_ROOT:-}" ]; then
    cd "${caller}"
    if ! check "${ESPNET_ROOT}" >&2; then
        echo "get_espnet: ESPNET_ROOT must be a git checkout or unpacked source" \
            "distribution (an installed espnet has no egs2); or unset it" >&2
        exit 1
    fi
    cd "${ESPNET_ROOT}" && pwd
    exit 0
fi

is_ready() { # the tree of this version is complete (it appears by a rename)
    [ "$(cat "${root}/version.txt" 2>/dev/null)" = "${version}" ] && check "${root}" >/dev/null
}

if ! is_ready; then
    python=.venv/bin/python
    if ! "${python}" -c '' 2>/dev/null; then
        python=$(tools/find_python.sh)
    fi
    exec 9>.espnet.lock # two makes at once
    flock 9
fi
if ! is_ready; then
    rm -rf "${download}"
    echo "get_espnet: downloading ESPnet ${version} (36 MB) from the package index" >&2
    # --no-binary names espnet alone: with :all: pip compiles the build tools as well,
    # and the same download takes 70 s instead of 6.
    "${python}" -m pip download --quiet --disable-pip-version-check --no-deps \
        --no-binary espnet --dest "${download}" "espnet==${version}" >&2
    "${python}" tools/espnet_tree.py unpack \
        "${download}/espnet-${version}.tar.gz" "${root}" --sha256 "${sha256}"
    rm -rf "${download}"
fi
echo "${root}"
