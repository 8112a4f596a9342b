"""Faults at every call by which a program changes a disk: an error, or the death of the process."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

CHANGES = ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "fsync", "ftruncate")
"""Functions of `os` that change the disk, or wait for it."""

FREEING = ("rename", "replace", "unlink", "remove", "rmdir", "ftruncate")
"""Those of them that a full disk still does."""

KINDS = ("killed", "error", "error afterwards", "full")
"""The process ends at the call; the call fails; it does its work, then fails; it and all calls after
it that need space fail.
"""


class Killed(BaseException):
    """The process is dead: from now on it changes nothing, not even to clean up."""


@dataclass
class Disk:
    """Counts the calls that change it, and fails at number `at`, counted from 0, in the way `kind`.

    Attributes:
        calls: how many there were.
    """

    at: int
    kind: str
    calls: int = 0

    def call(self, name: str, do: Callable[[], Any]) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if self.kind == "killed" and number >= self.at:
            raise Killed
        if self.kind == "full" and number >= self.at and name not in FREEING:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.kind == "error" and number == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        result = do()
        if self.kind == "error afterwards" and number == self.at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return result

    @property
    def reached(self) -> bool:
        """Whether there were enough calls for the fault to happen."""
        return self.calls > self.at


class FaultyFile:
    """A file whose writes go through the disk."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        return self._disk.call("write", lambda: self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "FaultyFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def faulty_disk(at: int, kind: str) -> Iterator[Disk]:
    """Inside the block the disk has the fault; Python's own functions are watched, not those in C."""
    disk = Disk(at, kind)

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **named: disk.call(name, lambda: function(*args, **named))

    def opened(file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+"):
            return plain_open(file, mode, *args, **named)
        return FaultyFile(disk.call("open", lambda: plain_open(file, mode, *args, **named)), disk)

    plain_open = builtins.open
    with ExitStack() as stack:
        for name in CHANGES:
            stack.enter_context(patch.object(os, name, watched(name, getattr(os, name))))
        stack.enter_context(patch.object(builtins, "open", opened))
        stack.enter_context(patch.object(io, "open", opened))
        yield disk


def each_fault(kind: str) -> Iterator[Callable[[], Any]]:
    """Contexts of `faulty_disk`, one call later each, until a block ends before its fault."""
    at, disk = 0, None
    while disk is None or disk.reached:

        @contextmanager
        def fault(at: int = at) -> Iterator[Disk]:
            nonlocal disk
            with faulty_disk(at, kind) as disk, suppress(Killed, OSError):
                yield disk

        yield fault
        assert disk is not None, "every fault must be used"
        at += 1
