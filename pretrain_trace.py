"""Train a language-model agent with TRACE.

torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml [section.name=value
...]
"""

import os
import sys

# Libraries look for the home folder and the terminal while they are imported.
from megatron_trace.supervise.surroundings import settle_in

if __name__ == "__main__":
    settle_in()

from megatron_trace.check.command import parse_command
from megatron_trace.config import SettingError
from megatron_trace.models.cuda_memory import grow_segments
from megatron_trace.supervise.guard import leave_group, train_rank
from megatron_trace.training.guarded_run import (
    REFUSED,
    run_guarded,
    tell_torchrun,
    write_exit_code,
)

# Ray and the writers of checkpoints spawn processes that import this file.
if __name__ == "__mp_main__":
    leave_group()

# On the CPU the train ranks and the engines take turns on the same cores: waiting OpenMP threads
# must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
grow_segments()


def main() -> int:
    """Check the command, then run it; returns the exit code (see `guarded_run`)."""
    try:
        command = parse_command(sys.argv[1:])
        if command.dry_run:
            # Only now: a typo should be reported before imports that take seconds.
            from megatron_trace.plan.dry_run import dry_run

            return dry_run(command.config)
    except SettingError as error:
        if train_rank() == 0:
            print(f"error: {error}", file=sys.stderr)
        tell_torchrun(f"error: {error}")
        return REFUSED
    return run_guarded(command)


if __name__ == "__main__":
    sys.exit(write_exit_code(main()))
