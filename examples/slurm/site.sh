# shellcheck shell=bash disable=SC2034 # read by the scripts that source this file
# All that differs from site to site: the only file here to edit. TRACE_SITE names another file to use instead.
# The job's script reads it, and so does what runs on every node. A variable that is already set keeps its value.

: "${GPUS_PER_NODE:=${SLURM_GPUS_ON_NODE:-8}}"
: "${LOG_ROOT:=runs/slurm}"     # logs of every job, on a file system that all nodes share
: "${RAY_PORT:=6379}"           # free on the first train node, as the next one
: "${TRAIN_PORT:=29400}"
: "${END_MARGIN_S:=180}"        # s between the run's end and SLURM's limit; starting torchrun takes a part of it
: "${SHUTDOWN_S:=960}"          # s from asking the ranks to end until torchrun kills them: more than stop.grace_s
: "${MAX_REQUEUES:=50}"         # starts of one job after its time limit
: "${INFINIBAND_PORTS:=0}"      # active ports that every node must have; 0: not checked
: "${NETWORK_GB_S:=0}"          # slowest acceptable all-reduce over all GPUs, GB/s; 0: any speed
: "${CHECK_NETWORK:=1}"         # 0: no all-reduce before the start
: "${CHECK_S:=180}"             # s; a node that has not answered the health check by then is ill
: "${JOIN_S:=300}"              # s; the nodes must have joined Ray by then

RAY_FLAGS=()                    # more options of `ray start`, such as (--object-store-memory=200000000000)
SRUN_FLAGS=()                   # more options of srun. With pyxis the container goes here. It shares the node's /tmp, where
                                # the train ranks meet Ray's processes:
# SRUN_FLAGS=(--container-image=/images/trace.sqsh --container-mounts="$PWD,/tmp" --container-workdir="$PWD")

# Modules and variables of a node. Runs before anything else does on it, inside a pyxis container.
setup_node() {
    # module load cuda/13.0
    # export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
    # export VLLM_USE_V2_MODEL_RUNNER=0 # the engines' older model runner
    # export CUDA_DEVICE_MAX_CONNECTIONS=1 # Megatron's wish on Hopper and older where parallel.tensor is above 1
    :
}

# Runs a program of the environment in which `pip install` was done: `in_container python --version`.
in_container() {
    # apptainer exec --nv --bind "$PWD" /images/trace.sif "$@"
    PATH="$PWD/.venv/bin:$PATH" "$@"
}

# The IPv4 address under which the other nodes reach node $1. On node $1 itself, a loopback address may come first.
node_address() {
    getent ahostsv4 "$1" | awk '!/^127\./ && !found++ { print $1 }'
}
