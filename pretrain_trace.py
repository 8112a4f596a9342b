"""Train a language-model agent with TRACE.

torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml [section.name=value ...]
"""

import os
import sys

from megatron_trace.config_check import SettingError, parse_command

# On the CPU the train ranks and the engines take turns on the same cores: OpenMP threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> int:
    """Check the command, then hand over. Exit code 0, 2 for a wrong setting, 3 for a run that a threshold stopped."""
    leader = os.environ.get("RANK", "0") == "0"
    try:
        command = parse_command(sys.argv[1:])
    except SettingError as error:
        if leader:
            print(f"error: {error}", file=sys.stderr)
        return 2
    # Only now: importing the run takes seconds, and a typo should not.
    from megatron_trace.training.health import UnhealthyRun
    from megatron_trace.training.run import run

    try:
        run(command)
    except UnhealthyRun as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":  # dist_checkpointing and Ray spawn processes that import this file
    sys.exit(main())
