"""`Judge`: judges what a policy wrote in processes of its own, as sympy may never come back.

An answer such as `9^{9^{9^9}}` keeps a library busy for years, inside one call that no thread can
interrupt. So a judgement has a limit of CPU time and of memory, which the kernel enforces: it does
not depend on how busy the machine is. The limit of time beside it is for a process that hangs.

It keeps a worker alive. It is no sandbox: never give it a function that evaluates its arguments as
code.
"""

import multiprocessing
import resource
import signal
from collections.abc import Callable
from concurrent.futures import TimeoutError as TooLong
from typing import Any

WALL_S = 300.0
"""Seconds after which a judgement is given up, on a machine however busy."""

CALLS = 2_000
"""After this number of judgements a process is replaced: sympy's caches grow."""


class Judge:
    """Calls functions in other processes. Its methods may be called from any thread."""

    def __init__(self, processes: int, cpu_s: float, memory_mib: int) -> None:
        """Nothing is started before the first call.

        Args:
            processes: most judgements at the same time; others wait.
            cpu_s: CPU seconds of a judgement.
            memory_mib: address space of a process in MiB, with Python and sympy.

        Raises:
            ImportError: pebble is missing.
        """
        from pebble import ProcessPool

        self._cpu_s = cpu_s
        self._pool = ProcessPool(
            processes,
            CALLS,
            initializer=_begin,
            initargs=(memory_mib,),
            # A fork of a worker, which has many threads, could hang.
            context=multiprocessing.get_context("spawn"),
        )

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns; None where it is over its limits.

        What it raises is raised here.

        Args:
            function: of a module, so that another process finds it by name.
        """
        from pebble import ProcessExpired

        future = self._pool.schedule(
            _limited, args=[self._cpu_s, function, *arguments], timeout=WALL_S
        )
        try:
            return future.result()
        except (ProcessExpired, TooLong):
            return None

    def close(self) -> None:
        """End all processes."""
        self._pool.stop()
        self._pool.join()


def _begin(memory_mib: int) -> None:
    limit = memory_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Ctrl-C reaches all processes of a terminal; the one that owns the judge ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limited(cpu_s: float, function: Callable[..., Any], *arguments: Any) -> Any:
    # Nobody handles the signal, so the kernel ends the process, whatever it does.
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        return function(*arguments)
    except (MemoryError, RecursionError):
        return None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
