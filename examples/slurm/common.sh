# shellcheck shell=bash
# What the job scripts share: from lists of nodes to a run. They source this file in the repository's root, then set
#   TRAIN_HOSTS, FLEET_HOSTS   nodes on which torchrun runs, and nodes whose GPUs are the fleet's
#   TRAIN_GROUP, FLEET_GROUP   srun's option for their component of a heterogeneous job
#   TRAIN_GPUS, FLEET_GPUS     ids of the GPUs of each, where they share one node
# and call run_job.
set -euo pipefail
shopt -s inherit_errexit

FLEET_HOSTS=() TRAIN_GROUP=() FLEET_GROUP=() STEPS=()
# shellcheck source=examples/slurm/site.sh
source "${TRACE_SITE:-examples/slurm/site.sh}"
# shellcheck source=examples/slurm/checks.sh
source examples/slurm/checks.sh

# run_job --config FILE [section.name=value ...]
run_job() {
    [[ ${1:-} == --config ]] || die "after the script's name comes --config FILE [section.name=value ...]" 2
    prepare
    trap stop_ray EXIT
    trap 'exit 143' TERM
    check_nodes
    if (( CHECK_NETWORK )); then check_network; fi
    start_ray
    train "$@"
    finish
}

prepare() {
    local ranks=$GPUS_PER_NODE
    if [[ -n ${TRAIN_GPUS:-} ]]; then ranks=$(awk -F, '{ print NF }' <<< "$TRAIN_GPUS"); fi
    if [[ ${TRACE_CPU:-0} == 1 ]]; then ranks=1; fi
    ALL_HOSTS=("${TRAIN_HOSTS[@]}" "${FLEET_HOSTS[@]}")
    HEAD_ADDRESS=$(node_address "${TRAIN_HOSTS[0]}") || true
    [[ -n $HEAD_ADDRESS ]] || die "${TRAIN_HOSTS[0]} has no address: see node_address in site.sh"
    LOG_DIR=$(realpath --canonicalize-missing "$LOG_ROOT")/$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}
    mkdir -p "$LOG_DIR/check"
    # Without a token, whoever reaches Ray's port can run programs as this user.
    (umask 077 && head -c 32 /dev/urandom | base64 > "$LOG_DIR/ray_token")
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$LOG_DIR/ray_token TRACE_EXIT_FILE=$LOG_DIR/exit_code
    # Every node keeps the logs of its workers; rank 0 does not print them too.
    export RAY_LOG_TO_DRIVER=0
    export LOG_DIR HEAD_ADDRESS RANKS_PER_NODE=$ranks RAY_PORT JOIN_S NETWORK_GB_S
    echo "job $SLURM_JOB_ID, start ${SLURM_RESTART_COUNT:-0}; logs: $LOG_DIR"
    echo "  training: ${TRAIN_HOSTS[*]} ($ranks ranks each)"
    echo "  rollouts: ${FLEET_HOSTS[*]:-GPUs ${FLEET_GPUS:-} of ${TRAIN_HOSTS[0]}}"
}

# at head|train|fleet LOG: leaves in AT the srun that starts one task on each of these nodes. In LOG, %N is the node;
# "all" is this job's own output.
at() {
    local nodes=("${TRAIN_HOSTS[@]}") group=("${TRAIN_GROUP[@]}")
    case $1 in
        head) nodes=("${TRAIN_HOSTS[0]}") ;;
        fleet) nodes=("${FLEET_HOSTS[@]}") group=("${FLEET_GROUP[@]}") ;;
    esac
    # Ray and torchrun share a node, so steps overlap. No task is bound to a single core.
    AT=(srun "${group[@]}" --overlap --cpu-bind=none --input=none --export=ALL --wait=0
        --nodes=${#nodes[@]} --ntasks=${#nodes[@]} --ntasks-per-node=1 --nodelist="$(IFS=, && echo "${nodes[*]}")"
        --output="$2" "${SRUN_FLAGS[@]}")
}

# Ray's head is on rank 0's node, since rank 0 joins Ray there. The head has no GPUs for the fleet unless the node is
# shared.
start_ray() {
    at head "$LOG_DIR/ray-head-%N.log"
    "${AT[@]}" bash examples/slurm/ray_node.sh --head &
    STEPS=($!)
    if (( ${#FLEET_HOSTS[@]} )); then
        at fleet "$LOG_DIR/ray-%N.log"
        "${AT[@]}" bash examples/slurm/ray_node.sh &
        STEPS+=($!)
    fi
    at head all
    "${AT[@]}" bash examples/slurm/node.sh python examples/slurm/wait_for_ray.py "${TRAIN_HOSTS[0]}" "${FLEET_HOSTS[@]}" &
    STEPS+=($!)
    # The first step to end is the wait for all nodes, or a Ray that failed.
    wait -n || die "Ray did not start; see $LOG_DIR/ray-*.log"
}

# train ARGUMENTS OF THE PROGRAM
train() {
    local settings=("rollout.ray_address=$HEAD_ADDRESS:$RAY_PORT") minutes
    minutes=$(minutes_left)
    if [[ -n $minutes && "$*" != *stop.time_limit_min=* ]]; then settings+=("stop.time_limit_min=$minutes"); fi
    at train all
    "${AT[@]}" --kill-on-bad-exit=1 bash examples/slurm/train_node.sh "${TRAIN_HOSTS[*]}" pretrain_trace.py "$@" "${settings[@]}" ||
        true # torchrun says no more than that it failed; see finish
}

# Minutes until the run must have ended; nothing where the job has no limit.
minutes_left() {
    local end seconds
    end=$(SLURM_TIME_FORMAT=standard scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*EndTime=\([0-9][^ ]*\).*/\1/p' | sort)
    if [[ -n $end ]]; then
        seconds=$(( $(date -d "${end%%$'\n'*}" +%s) - $(date +%s) - END_MARGIN_S ))
        awk -v seconds="$seconds" 'BEGIN { printf "%.2f\n", (seconds > 0 ? seconds / 60 : 0) }'
    fi
}

# Say why the run ended, and queue the job again where only the time was up.
finish() {
    local code
    code=$(cat "$TRACE_EXIT_FILE" 2> /dev/null || echo 1)
    stop_ray
    if (( code == 0 )); then
        echo "the run is finished"
    elif (( code != 75 )); then
        die "the run ended with exit code $code (see docs/checkpoints.md); the job is not queued again" "$code"
    elif (( ${SLURM_RESTART_COUNT:-0} >= MAX_REQUEUES )); then
        die "the time was up once more after MAX_REQUEUES=$MAX_REQUEUES; submit again to continue" 75
    else
        echo "the time was up; job $SLURM_JOB_ID is queued again and continues from the newest checkpoint"
        scontrol requeue "$SLURM_JOB_ID"
    fi
}

stop_ray() {
    if (( ${#STEPS[@]} )); then
        kill -TERM "${STEPS[@]}" 2> /dev/null || true
        wait "${STEPS[@]}" || true
        STEPS=()
    fi
    rm -f "$RAY_AUTH_TOKEN_PATH"
}

# die TEXT [CODE]
die() {
    echo "error: $1" >&2
    exit "${2:-1}"
}
