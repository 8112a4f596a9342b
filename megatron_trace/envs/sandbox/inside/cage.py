"""The locks of one call: namespaces, limits, capabilities, and the filter of system calls."""

import ctypes
import os
import resource
from typing import Any

from .syscalls import filter_program

NEW_NAMESPACES = 0x00020000 | 0x08000000
"""Mounts, System V memory and messages: CLONE_NEWNS, CLONE_NEWIPC."""

NEW_NUMBERS = 0x20000000
"""Processes: CLONE_NEWPID."""

PRIVATE = 0x4000 | 0x40000
"""Flags of `mount`: MS_REC, MS_PRIVATE."""

PLAIN_FILES = 2 | 4 | 8
"""MS_NOSUID, MS_NODEV, MS_NOEXEC."""

READ_ONLY_AGAIN = 1 | 2 | 8 | 32 | 4096
"""MS_RDONLY, MS_NOSUID, MS_NOEXEC, MS_REMOUNT, MS_BIND."""

SET_DEATH_SIGNAL, SET_FILTER, SET_NO_NEW_PRIVILEGES, KILL = 1, 22, 38, 9
CAPABILITIES_VERSION = 0x20080522

# Loaded before any call: each call is a copy of this process.
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_FILTER = filter_program()


def die_with_parent() -> None:
    """This process is killed when its parent's thread ends."""
    _control(SET_DEATH_SIGNAL, KILL)


def keep_null() -> None:
    """Let nobody change the mode of /dev/null, which is the machine's: its owner is the worker's
    user. One can still write to it. (bubblewrap's own `--remount-ro` makes it no device.)
    """
    _check("mount", _LIBC.mount(None, os.devnull.encode(), None, READ_ONLY_AGAIN, None))


def own_numbers() -> int:
    """A descriptor by which `fork_into_numbers` finds back to this process's own namespace.

    Raises:
        OSError: the kernel is older than 5.8.
    """
    own = os.pidfd_open(os.getpid())
    _check("setns", _LIBC.setns(own, NEW_NUMBERS))
    return own


def fork_into_numbers(own: int) -> int:
    """As `os.fork`; the child is the first process of a new process namespace.

    Args:
        own: from `own_numbers`.
    """
    _check("unshare", _LIBC.unshare(NEW_NUMBERS))
    child = -1
    try:
        child = os.fork()
    finally:
        # Later children of this process would belong to that namespace too.
        if child and _LIBC.setns(own, NEW_NUMBERS):
            os._exit(1)
    return child


def new_namespaces(scratch: str, limits: dict[str, Any]) -> None:
    """Give this process its own mounts.

    Args:
        scratch: the folder on which an empty file system of limited size is mounted.
        limits: of the call; see `Limits`.
    """
    _check("unshare", _LIBC.unshare(NEW_NAMESPACES))
    _check("mount", _LIBC.mount(None, b"/", None, PRIVATE, None))
    # Files are counted too: an empty one is about a kilobyte of the kernel's memory.
    options = f"size={limits['scratch_mib']}m,nr_inodes={limits['scratch_files'] + 1},mode=0700"
    mount = _LIBC.mount(b"scratch", scratch.encode(), b"tmpfs", PLAIN_FILES, options.encode())
    _check("mount", mount)


def lock(limits: dict[str, Any]) -> None:
    """Take all from this process that the policy's code must not have. It cannot be undone.

    Raises:
        OSError: a lock does not close.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, limits["cpu_s"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files"])
    _limit(resource.RLIMIT_FSIZE, limits["scratch_mib"] * 2**20)
    _limit(resource.RLIMIT_AS, limits["memory_mib"] * 2**20)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_VERSION, 0)
    # Effective, permitted and inheritable ones; with them go the ambient ones.
    _check("capset", _LIBC.capset(header, (ctypes.c_uint32 * 6)()))
    _control(SET_NO_NEW_PRIVILEGES, 1)
    program = _Program(len(_FILTER) // 8, _FILTER)
    _control(SET_FILTER, 2, ctypes.byref(program))


def _limit(which: int, value: int) -> None:
    # Soft and hard limit alike. The kernel only kills for CPU time at the hard limit: the first
    # process of its namespace does not hear SIGXCPU.
    resource.setrlimit(which, (value, value))


def _control(option: int, value: int, pointer: Any = None) -> None:
    zero = ctypes.c_ulong(0)
    third = zero if pointer is None else pointer
    _check("prctl", _LIBC.prctl(option, ctypes.c_ulong(value), third, zero, zero))


def _check(name: str, result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
