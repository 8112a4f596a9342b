"""Plays one call: a keeper makes the cage, starts the code in it, waits, and says how it ended.

The keeper is a copy of the server, and the code's process a copy of the keeper. The code's process
is the first of its own process namespace: it cannot name the keeper, and when it ends the kernel
kills all others of that namespace. What the keeper reports is what the kernel tells it. It reads
nothing that the code wrote.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NoReturn

from . import cage, program

READY = b"ready"


def play(fds: list[int], limits: dict[str, Any], scratch: str | None) -> NoReturn:
    """Play a call in this process and a child of it, and end.

    Args:
        fds: the code, its output, its errors, and the socket for the report. When the caller shuts
            its side of the socket, the call is stopped.
        limits: of the call; see `Limits`.
        scratch: where the call's own folder is mounted; None: no namespaces, and a folder among
            the temporary ones.
    """
    # Whatever happens, this copy must not go on as the server.
    try:
        _play(fds, limits, scratch)
    finally:
        os._exit(0)


def _play(fds: list[int], limits: dict[str, Any], scratch: str | None) -> None:
    code, *streams, report = fds
    with socket.socket(fileno=report) as caller:
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            cage.die_with_parent()
            with _folder(scratch, limits) as folder:
                answer = _watched(code, streams, folder, limits, caller)
        except OSError as error:
            answer = {"fault": str(error)}
        with contextlib.suppress(OSError):
            caller.send(json.dumps(answer).encode())


@contextlib.contextmanager
def _folder(scratch: str | None, limits: dict[str, Any]) -> Iterator[str]:
    """The call's own folder, which is empty."""
    if scratch is not None:
        cage.new_namespaces(scratch, limits)
        yield scratch
        return
    folder = tempfile.mkdtemp(prefix="trace_sandbox_")
    yield folder
    # Very deep folders are more than it can remove.
    with contextlib.suppress(Exception):
        shutil.rmtree(folder)


def _watched(
    code: int, streams: list[int], folder: str, limits: dict[str, Any], caller: socket.socket
) -> dict[str, Any]:
    """Run the code in a child; returns the report."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        _become_the_code(code, streams, folder, limits, writer)
    for fd in (code, *streams, writer):
        os.close(fd)
    watch = os.pidfd_open(child)
    with open(reader, "rb") as locked:
        said = locked.read()
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(caller, select.POLLIN)
    late = not poll.poll(limits["wall_s"] * 1000)
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    if said != READY:
        return {"fault": said.decode(errors="replace") or "the process died before the code began"}
    ending = os.waitstatus_to_exitcode(status)
    return {"ending": ending, "late": late, "cpu_s": usage.ru_utime + usage.ru_stime}


def _become_the_code(
    code: int, streams: list[int], folder: str, limits: dict[str, Any], writer: int
) -> NoReturn:
    """Run the code in this process, and nothing if a lock does not close."""
    try:
        cage.die_with_parent()
        with open(code, "rb", closefd=False) as file:
            text = file.read()
        os.chdir(folder)
        # Opened here, where it is read-only: of the machine's own file the owner could change the
        # mode, through a descriptor too.
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, fd in enumerate((nothing, *streams, writer)):
            os.dup2(fd, target)
        said = 1 + len(streams)
        os.closerange(said + 1, os.sysconf("SC_OPEN_MAX"))
        cage.lock(limits)
        sys.path.insert(0, "")
        # By this, and not by an exit code, the keeper tells a cage that did not close from code
        # that failed: the pipe is closed before the code begins.
        os.write(said, READY)
        os.close(said)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(program.ERROR)
    program.run(text)
