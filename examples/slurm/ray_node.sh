#!/usr/bin/env bash
# ray_node.sh [--head]: run this node's Ray until it is asked to end, then keep its logs.
set -euo pipefail
# shellcheck source=examples/slurm/site.sh
source "${TRACE_SITE:-examples/slurm/site.sh}"
setup_node

NODE=${SLURMD_NODENAME:-$(hostname -s)}
TEMP=/tmp/ray_$SLURM_JOB_ID.$SLURM_STEP_ID # short: Ray's sockets lie in it
gpus=$GPUS_PER_NODE
if [[ -n ${FLEET_GPUS:-} ]]; then
    gpus=$(awk -F, '{ print NF }' <<< "$FLEET_GPUS")
    export CUDA_VISIBLE_DEVICES=$FLEET_GPUS
elif [[ ${1:-} == --head || ${TRACE_CPU:-0} == 1 ]]; then
    gpus=0
fi
address=(--address="$HEAD_ADDRESS:$RAY_PORT")
if [[ ${1:-} == --head ]]; then
    # No CPUs, so that Ray places nothing beside the train ranks.
    address=(--head --node-ip-address="$HEAD_ADDRESS" --port="$RAY_PORT" --num-cpus=0 --include-dashboard=false)
fi

SECONDS=0
until [[ ${1:-} == --head ]] || (: > "/dev/tcp/$HEAD_ADDRESS/$RAY_PORT") 2> /dev/null; do
    (( SECONDS < JOIN_S )) || { echo "$NODE cannot reach $HEAD_ADDRESS:$RAY_PORT"; exit 1; }
    sleep 1
done
keep_logs() {
    mkdir -p "$LOG_DIR/ray-$NODE"
    cp -r "$TEMP/session_latest/logs/." "$LOG_DIR/ray-$NODE/"
    rm -rf "$TEMP"
}
trap keep_logs EXIT
trap : TERM # SLURM tells Ray as well, and Ray ends
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # at once: all nodes end together
in_container ray start "${address[@]}" --node-name="$NODE" --num-gpus="$gpus" --temp-dir="$TEMP" \
    --disable-usage-stats --block "${RAY_FLAGS[@]}"
