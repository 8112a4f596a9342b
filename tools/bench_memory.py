"""The most memory that a piece of work holds at a time."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes that `work` holds at its peak, above what was held before it.

    On a CPU it is the process's resident memory, which Linux counts in pages.
    """
    gc.collect()
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    # Freed memory that the allocator keeps would count as held before.
    ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS")
    # Linux then counts the peak from here on (man 5 proc_pid_clear_refs).
    Path("/proc/self/clear_refs").write_text("5")
    work()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/self/status has no {name}")
