"""Memory of freed tensors that the C library keeps.

Tensors have other sizes in every step. glibc keeps the blocks of freed ones, and they fit later
tensors worse and worse: a process grows for hundreds of steps while its tensors do not.
"""

import ctypes
from functools import cache
from typing import Any

UPDATES = 3
"""Optimizer updates after which freed memory is given back: new pages cost time."""


def give_back_freed_memory() -> None:
    """Give freed memory back to the system. Without glibc nothing is done."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
