#!/usr/bin/env bash
# node.sh PROGRAM ...: run a program on this node in the site's environment.
set -euo pipefail
# shellcheck source=examples/slurm/site.sh
source "${TRACE_SITE:-examples/slurm/site.sh}"
setup_node
in_container "$@"
