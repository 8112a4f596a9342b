"""The stacks of all processes of a run, asked for and collected. Only the standard library is imported here."""

import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from megatron_trace.supervise.leftovers import find, send
from megatron_trace.supervise.stacks import ASKED

ANSWER_S = 5.0
"""How long processes may take to write their stacks."""


def collect(folder: Path) -> str:
    """Ask every process that has a file in the guard folder for its stacks; returns them with role, host and pid.

    One that cannot answer, stopped or stuck in the kernel, is named with its state and holds up nobody.
    """
    files = {file: role_of(file) for file in sorted(folder.glob("*_*_*.txt"))}
    host = socket.gethostname()
    files = {
        file: who for file, who in files.items() if who[1] != host or find(who[2])
    }  # others have ended
    before = {file: file.stat().st_size for file in files}
    silent = {file for file, (_, name, pid) in files.items() if name == host and not ask(pid)}
    (folder / ASKED).touch()  # for processes on other hosts
    _wait({file: size for file, size in before.items() if file not in silent})
    parts = []
    for file, (role, name, pid) in files.items():
        text = file.read_bytes()[before[file] :].decode(errors="replace").rstrip()
        parts.append(
            f"--- {role}, host {name}, pid {pid}: {'stacks' if text else _state(pid, name == host)}\n{text}"
        )
    return "\n".join(part.rstrip() for part in parts)


def ask(pid: int) -> bool:
    """Ask a process of this host; returns whether it can answer."""
    process, status = find(pid), _status(pid)
    mask = int(status.get("SigCgt", "0"), 16)
    if process is None or not mask >> (signal.SIGUSR1 - 1) & 1:  # it would die of the signal
        return False
    send([process], signal.SIGUSR1)
    return status["State"][0] not in "TD"


def role_of(file: Path) -> tuple[str, str, int]:
    """Role, host and pid of a stack file's process."""
    role, _, rest = file.stem.partition("_")
    host, _, pid = rest.rpartition("_")
    return role, host, int(pid)


def _wait(before: Mapping[Path, int]) -> None:
    """Until all have written and none still writes."""
    end, previous = time.monotonic() + ANSWER_S, None
    while before and time.monotonic() < end:
        time.sleep(0.3)
        sizes = {file: file.stat().st_size for file in before}
        if sizes == previous and all(sizes[file] > size for file, size in before.items()):
            return
        previous = sizes


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _state(pid: int, here: bool) -> str:
    return f"no answer, state {_status(pid).get('State', 'ended')}" if here else "no answer"
