"""Train a language-model agent with TRACE.

torchrun --nproc-per-node 1 pretrain_trace.py --config configs/geo_hop_cpu.yaml [section.name=value ...]
"""

import os
import sys
import traceback
from pathlib import Path

from megatron_trace.check.command import Command, parse_command
from megatron_trace.config import SettingError
from megatron_trace.supervise.guard import Guard, leave_group
from megatron_trace.supervise.stop import Stop

if __name__ == "__mp_main__":  # spawned by a train rank
    leave_group()

# On the CPU the train ranks and the engines take turns on the same cores: OpenMP threads must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def main() -> int:
    """Check the command, then hand over.

    Exit code 0, 2 for a wrong setting (in a dry run also for what does not fit), 3 for a run that a threshold stopped.
    """
    leader = os.environ.get("RANK", "0") == "0"
    try:
        command = parse_command(sys.argv[1:])
        if command.dry_run:
            from megatron_trace.plan.dry_run import dry_run

            return dry_run(command.config)
    except SettingError as error:
        if leader:
            print(f"error: {error}", file=sys.stderr)
        return 2
    # Before anything is spawned, and before imports that take seconds.
    from megatron_trace.supervise import guard

    run, settings = command.config.run, command.config.stop
    try:
        keeper = guard.start(
            Path(run.directory) / run.name, hang_s=settings.hang_s, grace_s=settings.grace_s
        )
    except OSError as error:
        print(f"error: run.directory = {run.directory!r}: {error.strerror}", file=sys.stderr)
        return 2
    limit = settings.time_limit_min
    stop = Stop(None if limit is None else 60 * limit - settings.grace_s)
    code, words = guarded(command, keeper, stop)
    keeper.leave(code, words)
    return code


def guarded(command: Command, keeper: Guard, stop: Stop) -> tuple[int, str]:
    """Run; returns the exit code and why it is not 0."""
    # Only now: importing the run takes seconds, and a typo should not.
    from megatron_trace.policy.ranks import LeaderLost
    from megatron_trace.supervise.health import UnhealthyRun
    from megatron_trace.supervise.stop import Stopped
    from megatron_trace.training.identity import OtherRun
    from megatron_trace.training.run import run

    try:
        run(command, keeper, stop)
    except UnhealthyRun as error:
        return 3, f"stopped: {error}"
    except OtherRun as error:
        return 2, f"error: {error}"
    except Stopped as error:
        return error.exit_code, str(error)
    except LeaderLost:
        return 1, ""
    except Exception as error:
        traceback.print_exc()
        return 1, f"ended by {type(error).__name__}: {error}"
    return 0, ""


def noted(code: int) -> int:
    """Leave rank 0's exit code in the file that TRACE_EXIT_FILE names: torchrun says no more than 0 or 1."""
    file = os.environ.get("TRACE_EXIT_FILE")
    if file and os.environ.get("RANK", "0") == "0":
        Path(file).write_text(f"{code}\n")
    return code


if __name__ == "__main__":  # dist_checkpointing and Ray spawn processes that import this file
    sys.exit(noted(main()))
