"""What a run may leave on a machine, and its removal. Only the standard library is imported here.

Processes are known by a tag in their environment, which every child inherits wherever it is re-parented to.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from megatron_trace.supervise.stacks import TAG

SHARED_MEMORY = Path("/dev/shm")
NAMES = ("sem.mp-", "psm_", "torch_", "plasma", "vllm", "ray")
"""Beginnings of the names that Python's multiprocessing, torch, Ray and vLLM give their shared memory."""

Process = tuple[int, int]
"""Process id and start time in clock ticks: together they are never used again."""


def find(pid: int) -> Process | None:
    """The process that has `pid` now; None where there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (pid, int(fields[19]))


def lives(process: Process) -> bool:
    """Whether it still runs (or is stopped)."""
    return find(process[0]) == process


def tagged(tag: str) -> set[Process]:
    """All processes of this machine that carry `tag`, except this one."""
    wanted = f"{TAG}={tag}".encode()
    found = set()
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:  # it ended, or is another user's
            continue
        if pid != os.getpid() and wanted in environment.split(b"\0") and (process := find(pid)):
            found.add(process)
    return found


def send(processes: Iterable[Process], number: int) -> None:
    """Signal those that still live."""
    for process in processes:
        if lives(process):
            with suppress(ProcessLookupError):  # it may have ended just now
                os.kill(process[0], number)


def end_all(
    living: Callable[[], set[Process]], grace_s: float, limit_s: float = 10.0
) -> set[Process]:
    """SIGTERM to all that `living` finds, and SIGKILL to what is left after `grace_s`.

    Returns:
        What could not be ended within `limit_s`, such as a process in uninterruptible sleep.
    """
    begin = time.monotonic()
    asked: set[Process] = set()
    while left := living():
        waited = time.monotonic() - begin
        if waited > grace_s + limit_s:
            break
        if waited >= grace_s:
            send(left, signal.SIGKILL)
        else:
            send(left - asked, signal.SIGTERM)
            asked |= left
        time.sleep(0.1)
    return left


def shared_memory() -> set[str]:
    """Names in /dev/shm that a run may have made."""
    return {path.name for path in SHARED_MEMORY.glob("*") if path.name.startswith(NAMES)}


def remove_shared_memory(before: set[str]) -> None:
    """Remove this user's shared memory that is not in `before` and that no living process holds."""
    own = {name for name in shared_memory() - before if _owner(SHARED_MEMORY / name) == os.getuid()}
    for name in own - set(held(_pids())) if own else ():
        (SHARED_MEMORY / name).unlink(missing_ok=True)


def clear_folder(folder: Path) -> list[Path]:
    """Empty a folder of temporary files and remove it, except for folders of Ray's logs.

    Returns:
        The log folders that stay.
    """
    logs = [
        path
        for path in folder.glob("**/session_*/logs")
        if path.is_dir() and not path.parent.is_symlink()
    ]
    keep = {path for log in logs for path in (log, *log.parents)}
    for root, names, files in os.walk(folder):
        here = Path(root)
        for name in (*names, *files):
            path = here / name
            if path in keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        names[:] = [name for name in names if here / name in keep and here / name not in logs]
    if not logs and folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    return logs


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def held(pids: Iterable[int]) -> Iterator[str]:
    """Names in /dev/shm that one of the processes has mapped."""
    prefix = f"{SHARED_MEMORY}/"
    for pid in pids:
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        except OSError:
            continue
        for line in maps.splitlines():
            _, found, name = line.partition(prefix)
            if found:
                yield name.removesuffix(" (deleted)")
