"""Which process keeps the large blocks that it has freed."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
import resource

from megatron_trace.models.host_memory import keep_freed_memory

BLOCK = 256 * 2**20
keep_freed_memory()


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pointer = libc.malloc(BLOCK)
    ctypes.memset(pointer, 1, BLOCK)
    libc.free(pointer)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
faults()
print(faults())
"""

PAGES = 256 * 2**20 // 4096


@pytest.mark.parametrize(("settings", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False)])
def test_a_block_that_was_freed_has_its_pages_still(settings: dict[str, str], kept: bool) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, env=clean | settings, capture_output=True, text=True, check=True)
    assert (int(run.stdout) < PAGES / 2) == kept
