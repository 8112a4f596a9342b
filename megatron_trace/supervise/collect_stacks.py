"""The stacks of all processes of a run, asked for and collected."""

import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from megatron_trace.supervise.leftovers import find, send
from megatron_trace.supervise.stacks import ASKED

ANSWER_S = 5.0
"""How long processes may take to write their stacks."""

POLL_S = 0.3
"""How often it is looked whether they have."""


@dataclass(frozen=True)
class StackFile:
    """The file that one process of the run writes its stacks into.

    Attributes:
        path: `<role>_<host>_<pid>.txt` in the guard folder.
        size: bytes that it held before the stacks were asked for.
    """

    path: Path
    size: int

    @property
    def role(self) -> str:
        """What the process is, e.g. "worker"."""
        return self.path.stem.partition("_")[0]

    @property
    def host(self) -> str:
        """Name of the process's host; it may contain underscores."""
        return self.path.stem.partition("_")[2].rpartition("_")[0]

    @property
    def pid(self) -> int:
        """Id of the process on its host."""
        return int(self.path.stem.rpartition("_")[2])

    @property
    def is_here(self) -> bool:
        """Whether the process belongs to this host."""
        return self.host == socket.gethostname()

    def text(self) -> str:
        """What was written since the stacks were asked for."""
        return self.path.read_bytes()[self.size :].decode(errors="replace").rstrip()


def collect(folder: Path) -> str:
    """Ask every process that has a file in the guard folder for its stacks.

    A process that cannot answer, because it is stopped or stuck in the kernel, delays nobody.

    Returns:
        The stacks of each process with its role, host and pid. Instead of missing stacks its state.
    """
    files = [StackFile(path, path.stat().st_size) for path in sorted(folder.glob("*_*_*.txt"))]
    # Of another host nothing is known; here a process that ended needs no stacks.
    files = [file for file in files if not file.is_here or find(file.pid)]
    silent = [file for file in files if file.is_here and not ask(file.pid)]
    # Processes on other hosts cannot be signalled. They look for this file.
    (folder / ASKED).touch()
    _wait([file for file in files if file not in silent])
    return "\n".join(_report(file) for file in files)


def ask(pid: int) -> bool:
    """Ask a process of this host for its stacks; returns whether it can answer."""
    process, status = find(pid), _status(pid)
    caught_signals = int(status.get("SigCgt", "0"), 16)
    has_handler = caught_signals & (1 << (signal.SIGUSR1 - 1))
    # A process that has not registered a handler would die of the signal.
    if process is None or not has_handler:
        return False
    send([process], signal.SIGUSR1)
    # T: stopped, D: in the kernel. The signal waits until they run again.
    return status["State"][0] not in "TD"


def _report(file: StackFile) -> str:
    text = file.text()
    found = "stacks" if text else _no_answer(file)
    return f"--- {file.role}, host {file.host}, pid {file.pid}: {found}\n{text}".rstrip()


def _no_answer(file: StackFile) -> str:
    if not file.is_here:
        return "no answer"
    return f"no answer, state {_status(file.pid).get('State', 'ended')}"


def _wait(files: list[StackFile]) -> None:
    """Wait until all have written and no file has grown since the last look, at most `ANSWER_S`."""
    end = time.monotonic() + ANSWER_S
    previous: list[int] = []
    while files and time.monotonic() < end:
        time.sleep(POLL_S)
        sizes = [file.path.stat().st_size for file in files]
        answered = all(size > file.size for size, file in zip(sizes, files, strict=True))
        if answered and sizes == previous:
            return
        previous = sizes


def _status(pid: int) -> Mapping[str, str]:
    # Read by hand: psutil does not say which signals a process catches.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    status = {}
    for line in lines:
        name, _, value = line.partition(":")
        status[name] = value.strip()
    return status
