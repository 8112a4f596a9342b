"""Work through the trials of a grid, several at once."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console

from megatron_trace.compare.grid import Trial
from megatron_trace.compare.jobs import Job
from megatron_trace.compare.sweep_progress import SweepProgress

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long a run may take to save and end after Ctrl-C."""


class Interrupted(Exception):
    """The comparison was asked to end; the same command continues it."""


def work_through(
    trials: Sequence[Trial], start: Callable[[Trial], Job], *, jobs: int, console: Console
) -> dict[str, str]:
    """Do all `trials`, `jobs` at once; one that fails does not keep the others.

    However this ends, the trials at work are asked to save, and get time to.

    Returns:
        What went wrong, by the name of the trial.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP came.
    """
    waiting = list(trials)
    working: list[Job] = []
    failures: dict[str, str] = {}
    with _record_signals() as signals, SweepProgress(len(trials), console) as progress:
        try:
            while waiting or working:
                while waiting and len(working) < jobs and not signals:
                    working.append(start(waiting.pop(0)))
                    progress.begins(working[-1])
                failures |= _conclude_ended(working, progress)
                if signals:
                    raise Interrupted
                progress.show(working)
                time.sleep(POLL_S)
        finally:
            _end(working, progress)
    return failures


def _conclude_ended(working: list[Job], progress: SweepProgress) -> dict[str, str]:
    """Take the jobs that have ended out of `working`; returns what went wrong with them."""
    failures = {}
    for job in [job for job in working if job.poll()]:
        working.remove(job)
        error = job.conclude()
        if error:
            failures[job.trial.name] = error
        progress.ends(job, error)
    return failures


def _end(working: Sequence[Job], progress: SweepProgress) -> None:
    """Interrupt the jobs, and wait at most `PATIENCE_S` until they have saved."""
    if not working:
        return
    # First the signals, then the messages: after SIGHUP the terminal is gone, and printing raises
    # OSError.
    for job in working:
        job.interrupt()
    until = time.monotonic() + PATIENCE_S
    with suppress(OSError):
        progress.line("ending: what is at work saves its last finished step")
    saving = [job for job in working if not job.poll()]
    while saving and time.monotonic() < until:
        time.sleep(POLL_S)
        saving = [job for job in saving if not job.poll()]
    if saving:
        names = ", ".join(job.trial.name for job in saving)
        with suppress(OSError):
            progress.line(
                f"still saving: {names}; wait until they have ended before giving the command again"
            )


@contextmanager
def _record_signals() -> Iterator[list[int]]:
    """The signals that have come: Ctrl-C, SIGTERM, or SIGHUP where it is not ignored (nohup)."""
    # A handler that raises could interrupt `start` after the process began and before the job was
    # noted: the process would stay behind. So the handler only takes note.
    received: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda got, frame: received.append(got)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
