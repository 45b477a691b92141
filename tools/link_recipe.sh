#!/usr/bin/env bash
# Link this recipe into an ESPnet checkout as egs2/<corpus>/taste1, where it runs
# unchanged: tools/link_recipe.sh ESPNET_ROOT CORPUS
set -euo pipefail

if [ $# -ne 2 ]; then
    echo "usage: $0 ESPNET_ROOT CORPUS" >&2
    exit 2
fi
root=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
espnet=$1
corpus=$2
if [ ! -d "${espnet}/egs2/TEMPLATE/asr1/utils" ]; then
    echo "$0: ${espnet} is no ESPnet checkout with recipe tools (egs2/TEMPLATE/asr1/utils);" \
        "for an unpacked sdist run tools/espnet_tree.py relink ${espnet} first" >&2
    exit 1
fi
if [ ! -f "${root}/conf/corpora/${corpus}.opts" ] && [ ! -d "${espnet}/egs2/${corpus}" ]; then
    echo "$0: ${corpus} is neither a recipe of ${espnet}/egs2 nor one of:" \
        "$(cd "${root}/conf/corpora" && echo *.opts | sed 's/\.opts//g')" >&2
    exit 1
fi
recipe=${espnet}/egs2/${corpus}/taste1
mkdir -p "${recipe}"
for name in run.sh taste.sh marks.sh running.sh stages.sh scores.sh benchmarks.sh path.sh \
    cmd.sh conf local; do
    ln -sfn "${root}/egs2/taste/${name}" "${recipe}/${name}"
done
for name in utils scripts pyscripts steps; do
    ln -sfn "../../TEMPLATE/asr1/${name}" "${recipe}/${name}"
done
echo "linked ${recipe}; cd there and run ./run.sh"
