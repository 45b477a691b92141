#!/usr/bin/env bash
# Prepare a corpus: local/data.sh --corpus NAME [options of local/prepare_NAME.py]
# Writes data/<set>/{wav.scp,text,utt2spk,spk2utt[,segments]}; --help after --corpus NAME lists
# the options and the sets.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
if [ "${1:-}" != --corpus ] || [ ! -f "${here}/prepare_${2:-}.py" ]; then
    scripts=("${here}"/prepare_*.py)
    names=("${scripts[@]##*/prepare_}")
    echo "usage: $0 --corpus NAME [options]; NAME is one of: ${names[*]%.py}" >&2
    exit 2
fi
corpus=$2
shift 2
if [ -f ./path.sh ]; then
    # shellcheck disable=SC1091
    . ./path.sh
fi
${python:-python3} "${here}/prepare_${corpus}.py" "$@"
