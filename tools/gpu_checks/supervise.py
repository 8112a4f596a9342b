"""Runs groups of checks in processes of their own, and ends what takes too long.

Needs Python alone: what a check imports, and what it breaks, stays in its process.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gpu_checks.check import Check, Group, Outcome
from gpu_checks.worker import outcome_file

TOOLS = Path(__file__).parents[1]
POLL_S = 0.1
LOG_LINES = 40
"""Last lines of a process's log that become the details of a failure."""


class Supervisor:
    """Runs checks until `deadline`, a time of `time.monotonic`.

    Attributes:
        logs: folder of what the processes print.
    """

    def __init__(self, device: str, work: Path, deadline: float) -> None:
        """Nothing runs yet."""
        self.device, self.work, self.deadline = device, work, deadline
        self.logs = work / "logs"
        self.logs.mkdir()
        (work / "outcomes").mkdir()

    def run(self, group: Group) -> Iterator[Outcome]:
        """Yield the outcomes of a group's checks, each as soon as it is known."""
        remaining = list(group.checks)
        while remaining:
            yield from self._one_process(group, remaining)

    def _one_process(self, group: Group, remaining: list[Check]) -> Iterator[Outcome]:
        """Run checks in one process until one fails; take those with an outcome off `remaining`."""
        if time.monotonic() >= self.deadline:
            yield _out_of_time(remaining.pop(0))
            return
        # One log for each process; later ones of a group get a number.
        log = self.logs / f"{group.name}-{len(group.checks) - len(remaining)}.log"
        process = self._start(group, remaining, log)
        try:
            while remaining:
                outcome = self._wait(remaining[0], process, log)
                remaining.pop(0)
                yield outcome
                if outcome.status == "failed" or process.poll() is not None:
                    return
        finally:
            end(process)

    def _start(self, group: Group, checks: Sequence[Check], log: Path) -> subprocess.Popen:
        # The checks import each other, the tools beside them and the package, installed or not.
        paths = [str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
        path = os.pathsep.join(filter(None, paths))
        arguments = [self.device, str(self.work), *(check.name for check in checks)]
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "gpu_checks.worker", *arguments],
                env=os.environ | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait(self, check: Check, process: subprocess.Popen, log: Path) -> Outcome:
        begin = time.monotonic()
        file = outcome_file(self.work, check)
        limit = begin + check.limit_s
        while True:
            # Looked at before the file: a process may end just after it has written its outcome.
            code = process.poll()
            if file.exists():
                return _read(file, log)
            seconds = time.monotonic() - begin
            if code is not None:
                text = f"its process ended with {_exit_name(code)}"
                return Outcome(check.name, "failed", text, seconds, tail(log))
            if time.monotonic() >= self.deadline:
                return _out_of_time(check)
            if time.monotonic() >= limit:
                text = f"no result after {check.limit_s:.0f} s"
                return Outcome(check.name, "failed", text, seconds, tail(log))
            time.sleep(POLL_S)


def end(process: subprocess.Popen) -> None:
    """Kill a process that leads a session, with all that it has started there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _read(file: Path, log: Path) -> Outcome:
    outcome = Outcome(**json.loads(file.read_text()))
    if outcome.status == "failed":
        # What libraries have printed often says more than the error.
        outcome = dataclasses.replace(outcome, details=f"{outcome.details}\n{tail(log)}".strip())
    return outcome


def _out_of_time(check: Check) -> Outcome:
    return Outcome(check.name, "skipped", "the time for all checks is over")


def _exit_name(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
