#!/usr/bin/env bash
# Run the TASTE recipe on a corpus: ./run.sh [--corpus NAME] [options of taste.sh]
# The settings of a corpus are the lines of conf/corpora/NAME.opts. Linked into an
# ESPnet tree as egs2/<corpus>/taste1, the folder names the corpus, or is kaldi_dir: the
# folders that the corpus's own recipe prepares.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
corpus=mini_an4
named=false
if [ -f "conf/corpora/$(basename "$(dirname "${PWD}")").opts" ]; then
    corpus=$(basename "$(dirname "${PWD}")")
    named=true
elif [ "$(basename "${PWD}")" = taste1 ]; then
    corpus=kaldi_dir
    named=true
fi
rest=()
while [ $# -gt 0 ]; do
    if [ "$1" = --corpus ] && [ $# -gt 1 ]; then
        corpus=$2
        named=true
        shift
    else
        rest+=("$1")
    fi
    shift
done
if ! "${named}" && [[ " ${rest[*]} " == *" --train_set "* ]]; then
    echo "$0: --train_set without --corpus would run under the settings of ${corpus}," \
        "which are for a demo; say --corpus kaldi_dir for folders of your own" >&2
    exit 2
fi
opts=conf/corpora/${corpus}.opts
if [ ! -f "${opts}" ]; then
    echo "$0: no ${opts}; there are: $(cd conf/corpora && echo *.opts)" >&2
    exit 2
fi
mapfile -t args < <(grep -v '^#' "${opts}" | xargs -n 1)
./taste.sh --corpus "${corpus}" "${args[@]}" "${rest[@]}"
