"""Stacks on demand: a process of a run writes its threads' Python stacks when it gets SIGUSR1.

Each process writes into its own file in the run's guard folder, which the guard made and named in
the environment.
"""

import faulthandler
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TextIO

TAG = "MEGATRON_TRACE_RUN"
"""Environment variable that tells the processes of one train rank from all others."""

FOLDER = "MEGATRON_TRACE_GUARD"
"""Environment variable: the run's guard folder."""

INHERITED = (TAG, FOLDER, "SPT_NOENV")
"""Environment variables that every process of a run must have. With the last one, Ray and vLLM give
their processes a title without overwriting the environment that /proc shows."""

ASKED = "asked"
"""File in the guard folder that asks processes on other hosts, which the guard cannot signal, for
their stacks."""

POLL_S = 2.0

_file: TextIO | None = None


def register(role: str, *, watch: bool = False) -> None:
    """Write the stacks into `<role>_<host>_<pid>.txt` of the guard folder whenever SIGUSR1 comes.

    Nothing happens without a guard, or on a second call in one process.

    Args:
        role: what this process is, e.g. "worker".
        watch: also look for `ASKED`, in a thread: for a process that may be on another host.
    """
    global _file
    folder = Path(os.environ.get(FOLDER, ""))
    if _file is not None or FOLDER not in os.environ or not folder.is_dir():
        return
    # The file has to stay open: the signal handler writes to its descriptor.
    _file = (folder / f"{role}_{socket.gethostname()}_{os.getpid()}.txt").open("w")
    faulthandler.register(signal.SIGUSR1, file=_file, all_threads=True, chain=False)
    if watch:
        files = (folder / ASKED, Path(_file.name))
        threading.Thread(target=_watch, args=files, daemon=True).start()


def asked_since(asked: Path, file: Path) -> bool:
    """Whether `asked` appeared after `file`."""
    # Both times come from the file server. Hosts may disagree about the time.
    try:
        return asked.stat().st_mtime >= file.stat().st_mtime
    except OSError:
        return False


def _watch(asked: Path, file: Path) -> None:
    while not asked_since(asked, file):
        time.sleep(POLL_S)
    # The guard may have signalled this process already, if both are on one host.
    if not file.stat().st_size:
        os.kill(os.getpid(), signal.SIGUSR1)
