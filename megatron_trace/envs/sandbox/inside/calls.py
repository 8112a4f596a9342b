"""The calls that are running: each begins in its own cage, ends in time, and is reported.

The code's process is a copy of the server and the first of its own process namespace: it cannot
name the server or another call, and when it ends the kernel kills all others of that namespace.
What is reported is what the kernel tells. Nothing is read that the code wrote.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import cage, program

READY = b"ready"

FDS = 4
"""Descriptors of a call: the code, its output, its errors, and the socket for the report."""


class Call:
    """A call that is running.

    Attributes:
        caller: the socket for the report. When its other side is shut, the call is stopped.
        folder: the call's own.
        child: the process of the code.
        watch: a descriptor of that process.
        locked: the pipe by which the process says that all locks are closed.
        said: what it has said there.
        end: the time of `time.monotonic` at which it is too late; known when it is locked in.
        late: whether it was stopped for that.
    """

    def __init__(self, caller: int, folder: str) -> None:
        self.caller, self.folder = caller, folder
        self.child = self.watch = self.locked = -1
        self.said = b""
        self.end = float("inf")
        self.late = False


class Calls:
    """All calls of a server, which waits for descriptors and has `look` called for each."""

    def __init__(self, limits: dict[str, Any], scratch: str | None, poll: select.poll) -> None:
        """
        Args:
            limits: of every call; see `Limits`.
            scratch: where a call's own folder is mounted; None: no namespaces, and a folder among
                the temporary ones.
            poll: waits for the descriptors.
        """
        self._limits, self._scratch, self._poll = limits, scratch, poll
        self._own_numbers = cage.own_numbers() if scratch is not None else -1
        self._handlers: dict[int, Callable[[], None]] = {}
        self._running: set[Call] = set()

    def begin(self, fds: list[int]) -> None:
        """Begin a call; `fds` as of `FDS`."""
        code, *streams, caller = fds
        writer = -1
        call = Call(caller, self._scratch or "")
        try:
            if self._scratch is None:
                call.folder = tempfile.mkdtemp(prefix="trace_sandbox_")
            call.locked, writer = os.pipe()
            call.child = self._fork()
            if not call.child:
                self._become_the_code(code, streams, call.folder, writer)
            call.watch = os.pidfd_open(call.child)
        except OSError as error:
            if call.child > 0:
                os.kill(call.child, signal.SIGKILL)
                os.waitpid(call.child, 0)
            _send(caller, {"fault": str(error)})
            _close(call.locked, caller)
        else:
            self._running.add(call)
            self._await(call.locked, lambda: self._locked_in(call))
            self._await(call.caller, lambda: self._stop(call))
            self._await(call.watch, lambda: self._ended(call))
        _close(code, *streams, writer)

    def look(self, fd: int) -> None:
        """Do what is to be done when there is something to read at `fd`."""
        self._handlers[fd]()

    def wait_ms(self) -> int | None:
        """How long nothing need be done; None: until there is something to read."""
        first = min((call.end for call in self._running), default=float("inf"))
        if first == float("inf"):
            return None
        return max(0, int(1000 * (first - time.monotonic())) + 1)

    def end_late(self) -> None:
        """Stop the calls whose time is over."""
        now = time.monotonic()
        for call in self._running:
            if now >= call.end:
                call.late, call.end = True, float("inf")
                os.kill(call.child, signal.SIGKILL)

    def _fork(self) -> int:
        return os.fork() if self._scratch is None else cage.fork_into_numbers(self._own_numbers)

    def _locked_in(self, call: Call) -> None:
        call.said = os.read(call.locked, 4096)
        call.end = time.monotonic() + self._limits["wall_s"]
        self._forget(call.locked)
        call.locked = -1

    def _stop(self, call: Call) -> None:
        # It would be told of the shut socket again and again.
        self._forget(call.caller, close=False)
        os.kill(call.child, signal.SIGKILL)

    def _ended(self, call: Call) -> None:
        if call.locked >= 0:
            self._locked_in(call)
        self._running.remove(call)
        self._forget(call.watch)
        _, status, usage = os.wait4(call.child, 0)
        if call.said == READY:
            spent = usage.ru_utime + usage.ru_stime
            ending = os.waitstatus_to_exitcode(status)
            answer: dict[str, Any] = {"ending": ending, "late": call.late, "cpu_s": spent}
        else:
            said = call.said.decode(errors="replace")
            answer = {"fault": said or "the process died before the code began"}
        self._forget(call.caller, close=False)
        if self._scratch is None:
            self._remove(call, answer)
        else:
            self._report(call, answer)

    def _report(self, call: Call, answer: dict[str, Any]) -> None:
        _send(call.caller, answer)
        _close(call.caller)

    def _remove(self, call: Call, answer: dict[str, Any]) -> None:
        """Remove the folder, then report. The code decides how long that takes, so others go on."""
        child = os.fork()
        if not child:
            # Very deep folders are more than it can remove.
            with contextlib.suppress(BaseException):
                shutil.rmtree(call.folder)
            os._exit(0)
        watch = os.pidfd_open(child)

        def removed() -> None:
            os.waitpid(child, 0)
            self._forget(watch)
            self._report(call, answer)

        self._await(watch, removed)

    def _await(self, fd: int, handler: Callable[[], None]) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def _forget(self, fd: int, close: bool = True) -> None:
        if self._handlers.pop(fd, None):
            self._poll.unregister(fd)
        if close:
            os.close(fd)

    def _become_the_code(self, code: int, streams: list[int], folder: str, writer: int) -> NoReturn:
        """Run the code in this process, and nothing if a lock does not close."""
        try:
            cage.die_with_parent()
            if self._scratch is not None:
                cage.new_namespaces(self._scratch, self._limits)
            with open(code, "rb", closefd=False) as file:
                text = file.read()
            os.chdir(folder)
            # Opened here, where it is read-only: of the machine's own file the owner could change
            # the mode, through a descriptor too.
            nothing = os.open(os.devnull, os.O_RDONLY)
            for target, fd in enumerate((nothing, *streams, writer)):
                os.dup2(fd, target)
            said = 1 + len(streams)
            os.closerange(said + 1, os.sysconf("SC_OPEN_MAX"))
            cage.lock(self._limits)
            sys.path.insert(0, "")
            # By this, and not by an exit code, the server tells a cage that did not close from code
            # that failed: the pipe is closed before the code begins.
            os.write(said, READY)
            os.close(said)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            os._exit(program.ERROR)
        program.run(text)


def _send(caller: int, answer: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(caller, json.dumps(answer).encode())


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
