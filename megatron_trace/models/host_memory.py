"""How glibc keeps the memory that a process has freed."""

import ctypes
import os
from contextlib import suppress

# Numbers of options in glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
M_ARENA_MAX = -8

NEVER = 2**31 - 1
"""The largest threshold that mallopt takes, in bytes; glibc never trims less than it."""


def keep_freed_memory() -> None:
    """Let a process that computes on the CPU use its freed memory again. A setting of the user's
    (`MALLOC_…`) wins.

    By default glibc gives large blocks back to the kernel. Every large tensor of a train step then
    gets new pages, which the kernel clears one by one.
    """
    if not any(name.startswith("MALLOC_") for name in os.environ):
        _set(M_MMAP_MAX, 0)
        _set(M_TRIM_THRESHOLD, NEVER)


def share_freed_memory() -> None:
    """Let threads take the memory blocks that other threads have freed; by default glibc keeps them
    apart.
    """
    _set(M_ARENA_MAX, 1)


def _set(option: int, value: int) -> None:
    # Another C library has no mallopt.
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(option, value)
