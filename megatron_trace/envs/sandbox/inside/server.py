"""Waits for calls, with the modules of mathematics imported, and forks for each of them.

No code of a policy runs in this process. It reads one byte and some descriptors for each call, and
it ends when the other end of its socket is closed: when the worker is gone, however it went.
"""

import contextlib
import gc
import importlib
import select
import site
import socket
import sys
from typing import Any

from . import cage
from .calls import FDS, Calls

IMPORTED = """
    math cmath fractions decimal statistics random itertools functools collections operator re
    string heapq bisect json datetime time sympy numpy
"""
"""What costs no call any time."""


def serve(fd: int, limits: dict[str, Any], scratch: str | None) -> None:
    """Serve the socket `fd` until its other end is closed.

    Args:
        limits: of every call; see `Limits`.
        scratch: see `Calls`.
    """
    cage.die_with_parent()
    if scratch is not None:
        cage.keep_null()
    _prepare()
    with socket.socket(fileno=fd) as calls:
        poll = select.poll()
        poll.register(calls, select.POLLIN)
        running = Calls(limits, scratch, poll)
        calls.send(b"ready")
        while True:
            ready = poll.poll(running.wait_ms())
            running.end_late()
            # One at a time: what it closes may be opened again under the number of another one.
            for fd, _ in ready[:1]:
                if fd != calls.fileno():
                    running.look(fd)
                    continue
                message, fds, _, _ = socket.recv_fds(calls, 1, FDS)
                if not message:
                    return
                running.begin(fds)


def _prepare() -> None:
    """Import, and make every call begin in the same state."""
    for name in IMPORTED.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "sympy" in sys.modules:
        _use(sys.modules["sympy"])
    site.setquit()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    # What was printed before the time is over must have left the process.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    # Collections in a call would copy all pages.
    gc.collect()
    gc.freeze()


def _use(sympy: Any) -> None:
    """Call what agents call most. Its first use takes sympy 50 to 200 ms, later ones a few."""
    x, y = sympy.symbols("x y")
    sympy.solve(x**2 - 5 * x + 6, x)
    sympy.solve([x + y - 3, x - y - 1], [x, y])
    sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
    sympy.integrate(x * sympy.sin(x), x)
    sympy.limit(sympy.sin(x) / x, x, 0)
    sympy.summation(x, (x, 1, y))
    sympy.Matrix([[1, 2], [3, 4]]).eigenvals()
