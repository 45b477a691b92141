#!/usr/bin/env bash
# Make .venv: the locked packages and this one, editable. Quick when nothing changed.
#
#   PYTHON            interpreter to start from (default: see tools/find_python.sh)
#   UV_TORCH_BACKEND  e.g. cpu or cu128: another build of torch than the index's
#                     default one, from PyTorch's own index (needs internet access)
# Proxies, certificates and index settings of uv are left as they are; an index that
# only pip knows (pip.conf, PIP_INDEX_URL) is handed on to uv.
set -euo pipefail
shopt -s inherit_errexit # a failure inside $(...) stops the script too
cd "$(dirname "$0")/.."

uv_version=0.13.9 # the one that wrote the lock; any from 0.6 on reads it
venv=.venv
stamp="${venv}/.espnet_taste_stamp"
backend=${UV_TORCH_BACKEND:-}

log() { echo "setup_env: $*" >&2; }

# Moving the folder breaks an environment's scripts, so the path is part of the key.
key=$( (cat requirements.lock setup.py && echo "${backend} ${PWD}") | sha256sum)
if [ "$(cat "${stamp}" 2>/dev/null)" = "${key}" ] && "${venv}/bin/python" -c ''; then
    exit 0
fi

# Two makes at once would install into one folder.
exec 9>.venv.lock
flock 9

require_tools() { # <python>: name what is missing together with its Debian package
    local missing=() python=$1 version include
    for pair in gcc:gcc g++:g++ make:make git:git perl:perl awk:mawk bc:bc; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
    done
    version=$("${python}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    include=$("${python}" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "${include}/Python.h" ] || missing+=("python${version}-dev")
    if [ ${#missing[@]} -eq 0 ]; then
        return
    fi
    log "missing system tools; on Debian or Ubuntu: apt-get install ${missing[*]}"
    # Two packages are compiled; the other tools are wanted by ESPnet's recipes only.
    case " ${missing[*]} " in
        *" gcc "* | *" g++ "* | *-dev*)
            log "a C and C++ compiler and Python.h are needed now: stopping"
            exit 1
            ;;
    esac
}

find_uv() { # <python>: print the path of a usable uv, installing one if need be
    local found version
    found=$(command -v uv || true)
    if [ -n "${found}" ]; then
        version=$("${found}" --version 2>/dev/null | cut -d ' ' -f 2)
        if printf '0.6\n%s\n' "${version:-0}" | sort --version-sort --check=quiet; then
            echo "${found}"
            return
        fi
        log "${found} is version ${version:-unknown}, older than 0.6: not used"
    fi
    if [ "$(.uv/bin/uv --version 2>/dev/null | cut -d ' ' -f 2)" != "${uv_version}" ]; then
        log "installing uv ${uv_version} from the package index into .uv"
        rm -rf .uv
        "$1" -m venv .uv >&2
        .uv/bin/python -m pip install --quiet --disable-pip-version-check \
            "uv==${uv_version}" >&2
    fi
    echo .uv/bin/uv
}

hand_on_pip_settings() { # <python>
    local index
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}${UV_CONFIG_FILE:-}" ] &&
        [ ! -f "${XDG_CONFIG_HOME:-${HOME:-}/.config}/uv/uv.toml" ]; then
        index=${PIP_INDEX_URL:-$("$1" -m pip config get global.index-url 2>/dev/null || true)}
        if [ -n "${index}" ]; then
            export UV_DEFAULT_INDEX=${index}
        fi
    fi
    if [ -z "${SSL_CERT_FILE:-}" ] && [ -f "${PIP_CERT:-}" ]; then
        export SSL_CERT_FILE=${PIP_CERT}
    fi
}

python=$(tools/find_python.sh)
require_tools "${python}"
uv=$(find_uv "${python}")
hand_on_pip_settings "${python}"
# Cold, the CUDA libraries of torch are 2.5 GB; the default of 30 s is for small files.
export UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}

rm -f "${stamp}"
probe='import sys; sys.exit(not (3, 12) <= sys.version_info < (3, 14))'
if ! "${venv}/bin/python" -c "${probe}" 2>/dev/null; then
    log "making ${venv} with ${python}"
    "${uv}" venv --quiet --clear --python "${python}" "${venv}"
fi
# A uv of the user's must not take another environment that is active.
export VIRTUAL_ENV="${PWD}/${venv}"

# Progress bars for a person, nothing for a log file.
quiet=(--quiet)
if [ -t 2 ]; then
    quiet=()
fi
log "installing $(grep -c == requirements.lock) locked packages"
# Where Python may not write bytecode, each of the recipe's many processes would compile
# all that it imports, some ten seconds each: better once, by all cores.
[ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || export UV_COMPILE_BYTECODE=1
if [ -z "${backend}" ]; then
    "${uv}" pip install "${quiet[@]}" --require-hashes -r requirements.lock
    "${uv}" pip install "${quiet[@]}" --no-deps --no-build-isolation -e .
else
    # Another build of torch has other files and other dependencies than the lock:
    # its versions still bind, its hashes and its CUDA packages do not.
    grep -o '^[a-z0-9.-]*==[^ ]*' requirements.lock >"${venv}/versions.txt"
    "${uv}" pip install "${quiet[@]}" --constraint "${venv}/versions.txt" \
        -e ".[train,eval,demo,dev]"
fi
echo "${key}" >"${stamp}"
log "${venv} is ready"
