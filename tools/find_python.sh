#!/usr/bin/env bash
# Print the path of a Python 3.12 or 3.13 that works; exit 1 with remedies if none.
#
# "Works" is tried, not believed: a version manager's shim may be on PATH while the
# version behind it is not selected, and a self-built Python may lack ssl.
# PYTHON=/path/to/python is tried first.
set -euo pipefail

# uv makes environments by itself; without it, `python -m venv` needs ensurepip.
modules="ssl, venv"
if ! command -v uv >/dev/null 2>&1; then
    modules+=", ensurepip"
fi
probe="import sys
if not (3, 12) <= sys.version_info < (3, 14):
    sys.exit('is Python %d.%d' % sys.version_info[:2])
import ${modules}
print(sys.executable)"

rejected=()
declare -A seen=()
home=${HOME:-/nonexistent}

try() { # <candidate>: print the real interpreter and exit if the candidate works
    local found reason
    if [ -n "${seen[$1]:-}" ]; then
        return
    fi
    seen[$1]=1
    if found=$("$1" -c "${probe}" 2>/dev/null) && [ -x "${found}" ]; then
        echo "${found}"
        exit 0
    fi
    reason=$("$1" -c "${probe}" 2>&1) || true
    case "${reason}" in
        Traceback*) reason=${reason##*$'\n'} ;; # Python says it last, a shim first
        *) reason=${reason%%$'\n'*} ;;
    esac
    rejected+=("$1: ${reason#"$0: line "*: }")
}

try_files() { # <path or unmatched glob>...: newest version first
    local path
    while IFS= read -r path; do
        if [ -x "${path}" ]; then
            try "${path}"
        fi
    done < <(printf '%s\n' "$@" | sort --version-sort --reverse)
}

if [ -n "${PYTHON:-}" ]; then
    try "${PYTHON}"
    echo "find_python: PYTHON=${rejected[0]}; looking elsewhere" >&2
fi

for name in python3.12 python3.13 python3 python; do
    while IFS= read -r path; do
        try "${path}"
    done < <(type -ap "${name}")
done

# 3.12 before 3.13 everywhere: the results pages were made with it.
for minor in 12 13; do
    bin="bin/python3.${minor}"
    try_files "${PYENV_ROOT:-${home}/.pyenv}"/versions/3."${minor}"*/"${bin}"
    try_files "${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-${home}/.local/share}/uv/python}"/*/"${bin}"
    try_files /usr/"${bin}" /usr/local/"${bin}" /opt/"${bin}" /opt/*/"${bin}" /opt/*/*/"${bin}"
    for conda in "${CONDA_PREFIX:-}" "${home}"/{mini,ana}conda3 "${home}"/{miniforge,mambaforge}3; do
        if [ -n "${conda}" ]; then
            try_files "${conda}/${bin}" "${conda}"/envs/*/"${bin}"
        fi
    done
done

{
    echo "find_python: no working Python 3.12 or 3.13 (with ${modules}) found."
    if [ ${#rejected[@]} -gt 0 ]; then
        echo "Tried and refused:"
        printf '  %s\n' "${rejected[@]}"
    fi
    echo "Remedies, one of:"
    echo "  apt-get install python3.12-venv python3.12-dev   (Debian, Ubuntu; or python3.13-*)"
    echo "  pyenv install 3.12    uv python install 3.12    conda create -n py312 python=3.12"
    echo "  PYTHON=/path/to/python3.12 make ...              (if it lies elsewhere)"
} >&2
exit 1
