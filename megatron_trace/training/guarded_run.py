"""A run under its guard, and the exit code of each way in which it can end.

0    all steps are taken
1    an error, a train rank died, or the last results could not be saved
2    a wrong setting, or a checkpoint of another run; in a dry run also what does not fit
3    a threshold of `stop` was crossed
75   `stop.time_limit_min` has passed: start the run again to continue it
128 + N  signal N stopped it
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path

from megatron_trace.check.command import Command
from megatron_trace.config import SettingError
from megatron_trace.supervise import guard
from megatron_trace.supervise.console import try_to_write
from megatron_trace.supervise.guard import Guard, train_rank
from megatron_trace.supervise.stop import Stop, Stopped

FAILED, REFUSED, UNHEALTHY = 1, 2, 3


def run_guarded(command: Command) -> int:
    """Run `command` on this train rank; returns the exit code."""
    run, stop = command.config.run, command.config.stop
    # Before anything is spawned, so that the guard knows every process of the run.
    try:
        run_guard = guard.start(
            Path(run.directory) / run.name, hang_s=stop.hang_s, grace_s=stop.grace_s
        )
    except OSError as error:
        reason = f"error: run.directory = {run.directory!r}: {error.strerror}"
        print(reason, file=sys.stderr)
        tell_torchrun(reason)
        return REFUSED
    limit_s = None
    if stop.time_limit_min is not None:
        limit_s = 60 * stop.time_limit_min - stop.grace_s
    code, reason = _run(command, run_guard, Stop(limit_s))
    run_guard.leave(code, reason)
    if reason:
        tell_torchrun(reason)
    return code


def _run(command: Command, run_guard: Guard, stop: Stop) -> tuple[int, str]:
    """The exit code, and the reason if it is not 0."""
    # Imported here: it takes seconds, in which the guard already listens to signals.
    from megatron_trace.policy.manifest import DamagedCheckpoint
    from megatron_trace.policy.ranks import LeaderLost
    from megatron_trace.supervise.health import UnhealthyRun
    from megatron_trace.training.identity import OtherRun
    from megatron_trace.training.results import Unsaved
    from megatron_trace.training.run import run

    try:
        run(command, run_guard, stop)
    except UnhealthyRun as error:
        return UNHEALTHY, f"stopped: {error}"
    except (OtherRun, SettingError, DamagedCheckpoint) as error:
        return REFUSED, f"error: {error}"
    except Unsaved as error:
        return FAILED, f"error: {error}"
    except Stopped as error:
        return error.exit_code, str(error)
    except LeaderLost:
        # Rank 0's guard says what happened.
        return FAILED, ""
    except Exception as error:
        traceback.print_exc()
        return FAILED, f"ended by {type(error).__name__}: {error}"
    return 0, ""


def tell_torchrun(reason: str) -> None:
    """Let torchrun's report of a failure, the last thing on the screen, end with `reason`.

    torchrun reads it from the file that TORCHELASTIC_ERROR_FILE names. Without that file the report
    has no reason, and the user has to scroll up for ours.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file:
        # The keys of torch.distributed.elastic.multiprocessing.errors.ErrorHandler, whose import
        # takes seconds. torchrun prints what it takes for the stack.
        details = {"py_callstack": reason, "timestamp": str(int(time.time()))}
        error = {"message": {"message": reason, "extraInfo": details}}
        try_to_write(Path(file), json.dumps(error))


def write_exit_code(code: int) -> int:
    """Write rank 0's exit code into the file that TRACE_EXIT_FILE names.

    torchrun itself exits with 0 or 1, whatever its ranks exit with.

    Returns:
        `code`.
    """
    file = os.environ.get("TRACE_EXIT_FILE")
    if file and train_rank() == 0:
        try_to_write(Path(file), f"{code}\n")
    return code
