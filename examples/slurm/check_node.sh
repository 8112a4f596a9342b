#!/usr/bin/env bash
# Examine this node. It writes lines into $LOG_DIR/check/<node>: "failed <what>", "skipped <what>", "same <what> <value>" for
# what must be the same on all nodes, and "complete" at the end.
set -euo pipefail
# shellcheck source=examples/slurm/site.sh
source "${TRACE_SITE:-examples/slurm/site.sh}"
setup_node
NODE=${SLURMD_NODENAME:-$(hostname -s)}

smi() { timeout 60 nvidia-smi "$@"; }

check_gpus() {
    local found
    found=$(smi --list-gpus | grep -c '^GPU') || true
    (( found == GPUS_PER_NODE )) || echo "failed $found of $GPUS_PER_NODE GPUs answer"
    smi --query-gpu=index,ecc.errors.uncorrected.volatile.total --format=csv,noheader |
        awk -F', ' '$2 ~ /^[1-9]/ { print "failed GPU " $1 ": " $2 " uncorrected memory errors" }'
    smi --query-compute-apps=pid,name,used_memory --format=csv,noheader |
        awk -F', ' '{ print "failed a GPU is in use: pid " $1 " (" $2 ", " $3 ")" }'
    smi --query-gpu=index,memory.used --format=csv,noheader,nounits |
        awk -F', ' '$2 > 2048 { print "failed GPU " $1 ": " $2 " MiB are taken" }'
    smi nvlink --status | awk '/^GPU/ { gpu = $2 } /[iI]nactive/ { print "failed GPU " gpu " NVLink" $0 }'
    echo "same driver $(smi --query-gpu=driver_version --format=csv,noheader | sort -u | paste -sd' ')"
}

check_cuda() {
    local found
    found=$(in_container python -c 'import torch; print(torch.cuda.device_count())') || true
    [[ $found == "$GPUS_PER_NODE" ]] || echo "failed PyTorch sees ${found:-no} GPUs of $GPUS_PER_NODE"
}

# Triton builds small C programs when a run starts, on every node.
check_compiler() {
    # shellcheck disable=SC2016 # CC is the container's
    in_container bash -c 'command -v "${CC:-gcc}" || { [[ -z ${CC:-} ]] && command -v clang; }' > /dev/null ||
        echo "failed no C compiler is found, which Triton needs"
}

check_infiniband() {
    local active
    active=$(cat /sys/class/infiniband/*/ports/*/state 2> /dev/null | grep -c ACTIVE) || true
    (( active >= INFINIBAND_PORTS )) || echo "failed $active of $INFINIBAND_PORTS InfiniBand ports are active"
}

check_software() {
    echo "same commit $(git rev-parse HEAD 2> /dev/null || echo unknown)"
    in_container python - << 'END' || echo "failed Python: see $LOG_DIR/check-$NODE.log"
import importlib.metadata as packages
import platform

print("same Python", platform.python_version())
for name in ("torch", "ray", "megatron-core"):
    print("same", name, packages.version(name))
END
}

check_files() {
    [[ $(cat "$LOG_DIR/check/.job") == "$SLURM_JOB_ID" ]] || echo "failed $LOG_DIR is not shared with the first node"
    touch "/tmp/.trace_$SLURM_JOB_ID" "/dev/shm/.trace_$SLURM_JOB_ID" || echo "failed /tmp or /dev/shm cannot be written"
    rm -f "/tmp/.trace_$SLURM_JOB_ID" "/dev/shm/.trace_$SLURM_JOB_ID"
}

{
    check_files
    check_software
    check_infiniband
    if [[ ${TRACE_CPU:-0} == 1 ]]; then
        echo "skipped GPUs, their memory, NVLink and driver (TRACE_CPU=1)"
    else
        check_gpus
        check_cuda
        check_compiler
    fi
    if (( INFINIBAND_PORTS == 0 )); then echo "skipped InfiniBand (INFINIBAND_PORTS=0)"; fi
    echo complete
} > "$LOG_DIR/check/$NODE"
