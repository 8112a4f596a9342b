# shellcheck shell=bash
# The health check of all nodes, before anything starts. Part of common.sh.

# Every node examines itself and writes what it found into a file (check_node.sh). A node is ill if its file names a
# failure, is not complete, or differs from the first node's file in what must be the same everywhere.
check_nodes() {
    local node ill=()
    echo "$SLURM_JOB_ID" > "$LOG_DIR/check/.job"
    everywhere check examples/slurm/check_node.sh || true
    for node in "${ALL_HOSTS[@]}"; do
        if ! is_well "$LOG_DIR/check/$node" "$LOG_DIR/check/${TRAIN_HOSTS[0]}"; then ill+=("$node"); fi
    done
    if (( ${#ill[@]} )); then
        die "nothing was started; to leave out what is ill: sbatch --exclude=$(IFS=, && echo "${ill[*]}") ..."
    fi
    echo "all ${#ALL_HOSTS[@]} nodes are well"
    sed -n 's/^skipped /  not checked: /p' "$LOG_DIR/check/${TRAIN_HOSTS[0]}"
}

# is_well FILE FIRST: prints what is wrong with the node of FILE, compared with the first node's file; fails if anything is.
is_well() {
    local node=${1##*/} problems
    problems=$(sed -n 's/^failed //p' "$1" 2> /dev/null || true)
    if ! grep -qsx complete "$1"; then
        problems+="${problems:+$'\n'}no answer within CHECK_S=$CHECK_S s; see $LOG_DIR/check-$node.log"
    elif [[ -f $2 ]]; then
        problems+=$(grep '^same ' "$1" | grep -vxFf "$2" | sed "s/^same /other than on ${2##*/}: /")
    fi
    if [[ -n $problems ]]; then
        echo "${problems//$'\n'/$'\n'error: $node: }" | sed "1s/^/error: $node: /" >&2
        return 1
    fi
}

check_network() {
    everywhere network examples/slurm/train_node.sh "${ALL_HOSTS[*]}" examples/slurm/check_network.py ||
        die "nothing was started: the all-reduce over all nodes failed or took too long; see $LOG_DIR/network-*.log"
    sed -n 's/.*\(all-reduce over .*\)/\1/p' "$LOG_DIR"/network-*.log
}

# everywhere NAME SCRIPT ...: run SCRIPT on every node, with logs of that NAME, for at most CHECK_S; fails if one fails.
everywhere() {
    local name=$1 kind step steps=() code=0
    shift
    for kind in train ${FLEET_HOSTS:+fleet}; do
        at "$kind" "$LOG_DIR/$name-%N.log"
        timeout --kill-after=20 "$CHECK_S" "${AT[@]}" bash "$@" &
        steps+=($!)
    done
    for step in "${steps[@]}"; do wait "$step" || code=$?; done
    return "$code"
}
