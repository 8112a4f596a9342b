#!/usr/bin/env bash
# train_node.sh "NODE ..." PROGRAM ...: torchrun a program on this node, one of NODE ...; the first node has rank 0.
set -euo pipefail
# shellcheck source=examples/slurm/site.sh
source "${TRACE_SITE:-examples/slurm/site.sh}"
setup_node

NODE=${SLURMD_NODENAME:-$(hostname -s)}
read -ra nodes <<< "$1"
name=$(basename "$2" .py)
shift
for rank in "${!nodes[@]}"; do [[ ${nodes[rank]} != "$NODE" ]] || break; done
[[ ${nodes[rank]} == "$NODE" ]] || { echo "$NODE is not among: ${nodes[*]}"; exit 1; }
if [[ -n ${TRAIN_GPUS:-} ]]; then export CUDA_VISIBLE_DEVICES=$TRAIN_GPUS; fi
if [[ $rank == 0 ]]; then export VLLM_HOST_IP=$HEAD_ADDRESS; fi # where the fleet meets rank 0 for weights by NCCL
logs=$LOG_DIR/$name-$NODE

trap : TERM # SLURM tells torchrun as well
# Ranks in the order of the nodes, which only the static rendezvous promises: Ray's head is where rank 0 is.
in_container torchrun --rdzv-backend=static --rdzv-id="$SLURM_JOB_ID" --master-addr="$HEAD_ADDRESS" --master-port="$TRAIN_PORT" \
    --nnodes="${#nodes[@]}" --node-rank="$rank" --nproc-per-node="$RANKS_PER_NODE" --max-restarts=0 \
    --shutdown-timeout="$SHUTDOWN_S" --log-dir="$logs" --tee=3 --local-ranks-filter=0 "$@" && code=0 || code=$?

# SLURM kills what is left when a step ends. The guards need a moment more to clean up and to say what happened.
while pgrep -f "guard_process.*guard-$HEAD_ADDRESS-$TRAIN_PORT" > /dev/null; do sleep 0.5; done
if (( code )) && [[ $rank == 0 ]]; then
    echo "the last lines of rank 0:"
    find "$logs" -path '*/0/stderr.log' -exec tail -n 5 {} +
fi
exit "$code"
