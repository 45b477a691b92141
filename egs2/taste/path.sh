# Sourced by the recipe: puts Python, ESPnet's recipe tools and settings in place.

# Three levels up is ESPnet's root when this folder is linked into an ESPnet tree
# as egs2/<corpus>/taste1; in our own repository it is not.
recipe_dir=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
taste_root=$(cd "${recipe_dir}/../.." && pwd)
if [ -z "${ESPNET_ROOT:-}" ] && [ -d "${PWD}/../../TEMPLATE/asr1" ]; then
    ESPNET_ROOT=$(cd "${PWD}/../../.." && pwd)
fi
ESPNET_ROOT=${ESPNET_ROOT:-${taste_root}/.espnet}
if [ ! -d "${ESPNET_ROOT}/egs2/TEMPLATE/asr1/utils" ]; then
    echo "path.sh: no ESPnet tree at ${ESPNET_ROOT}; run 'make setup' in ${taste_root}," \
        "or set ESPNET_ROOT to an ESPnet checkout" >&2
    return 1
fi
export ESPNET_ROOT

# Links that a git checkout of this project cannot carry; ignored by git. They follow
# ESPNET_ROOT; what is no link is somebody's own.
for tool in utils scripts pyscripts steps; do
    target=${ESPNET_ROOT}/egs2/TEMPLATE/asr1/${tool}
    if [ -L "${tool}" ] || [ ! -e "${tool}" ]; then
        [ "${tool}" -ef "${target}" ] || ln -sfn "${target}" "${tool}"
    fi
done

# A checkout's own Python, if what this project needs is installed there, else ours.
has_packages() {
    python3 -c 'from importlib.util import find_spec
names = "espnet2", "peft", "transformers", "sentencepiece", "kaldiio"
raise SystemExit(None in map(find_spec, names))' 2>/dev/null
}
python_of=
if [ -f "${ESPNET_ROOT}/tools/activate_python.sh" ]; then
    . "${ESPNET_ROOT}/tools/activate_python.sh"
    if has_packages; then python_of=${ESPNET_ROOT}; fi
fi
if [ -z "${python_of}" ] && [ -f "${taste_root}/.venv/bin/activate" ]; then
    . "${taste_root}/.venv/bin/activate"
elif [ -z "${python_of}" ] && [ -f "${ESPNET_ROOT}/tools/activate_python.sh" ]; then
    echo "path.sh: the Python of ${ESPNET_ROOT} lacks packages of espnet-taste; run there" \
        "pip install -e '${taste_root}[train,eval,demo]', or 'make setup' in ${taste_root}" >&2
    return 1
fi

export PATH=${PWD}/utils:${PATH}
export PYTHONPATH=${taste_root}${PYTHONPATH:+:${PYTHONPATH}}
export LC_ALL=C
export PYTHONIOENCODING=UTF-8
# Unset, torch and BLAS fight over the cores: one step takes seconds, not 30 ms.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Threads that wait for long must sleep: spinning, they cost a busy machine up to 60
# times. Sleeping at once, two of them are hardly faster than one: a step of a training
# takes 1.8 s on two free cores, 1.3 s with so many turns of waiting, 1.1 s with five
# times as many; 2.2, 3.2 and 6.4 s where one of the cores is taken.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-10000}
# A step needs the memory of the step before. Given back to the system in between, it is
# cleared again for every large tensor: half of a CPU training's page faults.
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432}
export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-17179869184}
export NCCL_SOCKET_IFNAME="^lo,docker,virbr,vmnet,vboxnet"
# Of what sbatch was asked for, srun takes the CPUs of a task from nowhere else (SLURM 22.05
# and later): the workers of a training on several nodes would share one.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
    export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK}}
fi
