"""What a run may leave on a machine, and its removal.

A process of a run is known by a tag in its environment. Every child inherits the tag, and keeps it
when its parent dies. A psutil `Process` is an id with its start time, so that a later process that
gets the same id is another one. The guard's processes import this file, so it imports nothing
heavy.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
from psutil import Process

from megatron_trace.supervise.stacks import TAG

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_PREFIXES = ("sem.mp-", "psm_", "torch_", "plasma", "vllm", "ray")
"""How the names begin that multiprocessing, torch, Ray and vLLM give their shared memory."""

ENDED = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

POLL_S = 0.1
"""How often `end_all` looks which processes still live."""


def find(pid: int) -> Process | None:
    """The process that has `pid` now; None if there is none, or only a zombie."""
    try:
        process = Process(pid)
    except psutil.NoSuchProcess:
        return None
    return process if lives(process) else None


def lives(process: Process | None) -> bool:
    """Whether the process runs or is stopped; a zombie has ended."""
    try:
        return process is not None and process.is_running() and process.status() not in ENDED
    except psutil.NoSuchProcess:
        return False


def tagged(tag: str) -> set[Process]:
    """All processes of this machine that carry `tag`, except this one."""
    found = set()
    for pid in psutil.pids():
        try:
            process = Process(pid)
            carries_tag = process.environ().get(TAG) == tag
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        # In this order: `lives` also refuses an id that another process got while its environment
        # was read.
        if carries_tag and pid != os.getpid() and lives(process):
            found.add(process)
    return found


def send(processes: Iterable[Process], number: int) -> None:
    """Send signal `number` to those processes that still live."""
    for process in processes:
        if lives(process):
            # It may have ended just now.
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def end_all(
    living: Callable[[], set[Process]], grace_s: float, limit_s: float = 10.0
) -> set[Process]:
    """Send SIGTERM to all that `living` finds, and after `grace_s` seconds SIGKILL.

    Args:
        living: finds the processes. It is asked again and again, because they may start others
            meanwhile.
        limit_s: seconds after the first SIGKILL until this function gives up.

    Returns:
        The processes that did not end, such as one in uninterruptible sleep.
    """
    begin = time.monotonic()
    asked: set[Process] = set()
    empty_looks = 0
    # One is not enough: right after exec a process has no environment that shows its tag.
    while empty_looks < 2:
        left = living()
        if not left:
            empty_looks += 1
            time.sleep(POLL_S)
            continue
        empty_looks = 0
        waited = time.monotonic() - begin
        if waited > grace_s + limit_s:
            break
        if waited >= grace_s:
            send(left, signal.SIGKILL)
        else:
            send(left - asked, signal.SIGTERM)
            asked |= left
        psutil.wait_procs(left, timeout=POLL_S)
    return left


def shared_memory() -> set[str]:
    """Names in /dev/shm that a run may have made."""
    names = {path.name for path in SHARED_MEMORY.glob("*")}
    return {name for name in names if name.startswith(SHARED_MEMORY_PREFIXES)}


def remove_shared_memory(before: set[str]) -> None:
    """Remove this user's shared memory that no living process has mapped.

    Args:
        before: names that were there before the run, and stay.
    """
    new = shared_memory() - before
    own = {name for name in new if _owner(SHARED_MEMORY / name) == os.getuid()}
    # Reading the memory maps of all processes takes a while, and most runs leave nothing.
    if own:
        for name in own - set(mapped(psutil.pids())):
            (SHARED_MEMORY / name).unlink(missing_ok=True)


def mapped(pids: Iterable[int]) -> Iterator[str]:
    """Names in /dev/shm that one of the processes has mapped."""
    prefix = f"{SHARED_MEMORY}/"
    for pid in pids:
        # Not psutil's memory_maps: it reads smaps, for which the kernel walks every page of the
        # process.
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        except OSError:
            continue
        for line in maps.splitlines():
            _, found, name = line.partition(prefix)
            if found:
                yield name.removesuffix(" (deleted)")


def clear_folder(folder: Path) -> list[Path]:
    """Empty a folder of temporary files and remove it, except for folders of Ray's logs.

    Returns:
        The log folders that stay.
    """
    sessions = folder.glob("**/session_*/logs")
    logs = [path for path in sessions if path.is_dir() and not path.parent.is_symlink()]
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
        # os.walk visits what is left in this list: the way down to the logs, but not what is in
        # them.
        names[:] = [name for name in names if here / name in keep and here / name not in logs]
    if not logs and folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    return logs


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None
