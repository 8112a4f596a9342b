"""Runs the policy's code in this process, as `python FILE` would, and ends the process."""

import contextlib
import linecache
import os
import random
import signal
import sys
import traceback
import types
from typing import NoReturn

ERROR, MEMORY = 1, 2
"""Exit codes. Whoever runs code can make it end with any of them."""

FILE = "<code>"


def run(code: bytes) -> NoReturn:
    """Run `code`, UTF-8 in which lone surrogates may occur; the exit code says how it ended."""
    ending = ERROR
    try:
        ending = _run(code)
    except MemoryError:
        ending = MEMORY
    except BaseException:
        # What is raised while an exception is shown: a broken pipe, or one's own `__str__`.
        ending = ERROR
    finally:
        os._exit(ending)


def _run(code: bytes) -> int:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Python gives it a new seed in every copy of a process. The same code must bring the same result.
    random.seed(0)
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    ending = 0
    try:
        text = code.decode("utf-8", "surrogatepass")
        # So that the trace shows the lines of the code.
        linecache.cache[FILE] = (len(text), None, text.splitlines(keepends=True), FILE)
        exec(compile(text, FILE, "exec"), main.__dict__)
    except SystemExit as error:
        ending = _exit_code(error)
    except MemoryError as error:
        ending = MEMORY
        _show(error)
    except BaseException as error:
        ending = ERROR
        _show(error)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return ending


def _exit_code(error: SystemExit) -> int:
    if error.code is None or error.code == 0:
        return 0
    if not isinstance(error.code, int):
        print(error.code, file=sys.stderr)
    return ERROR


def _show(error: BaseException) -> None:
    """Print the trace, from the first line of the code on."""
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    with contextlib.suppress(MemoryError):
        traceback.print_exception(error)
