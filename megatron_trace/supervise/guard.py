"""A guard for every train rank: whatever happens to the rank, the run ends whole and says how to continue.

`start` comes first thing in a train rank, before anything is spawned: it tags the environment, gives temporary files a
folder of the run's own, and starts the process of `guard_process.py`.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import megatron_trace
from megatron_trace.supervise import stacks
from megatron_trace.supervise.guard_process import Settings

LONGEST_TEMP = 28
"""Longest parent of the folder of temporary files: Ray's sockets lie below it, and a path has 107 bytes at most."""

TEXT_BYTES = 1500
"""Longest text of a message: longer ones would not be written in one piece."""


class Guard:
    """A train rank's end of the pipe to its guard. If the guard itself is killed, the run goes on without."""

    def __init__(self, pipe: int) -> None:
        """`pipe` is a non-blocking descriptor to write to."""
        self._pipe = pipe

    def beat(self, phase: str) -> None:
        """Progress was made in `phase`, or it begins."""
        self._tell({"beat": phase})

    def hint(self, text: str) -> None:
        """How to continue if the run ended now: the very last line of a run that ends badly."""
        self._tell({"hint": _short(text)})

    @contextmanager
    def watching(self, processes: Mapping[str, int]) -> Iterator[None]:
        """Ask the run to end, as a signal would, if one of `processes` (name -> pid) dies meanwhile."""
        for name, pid in processes.items():
            self._tell({"watch": name, "pid": pid})
        try:
            yield
        finally:
            self._tell({"unwatch": True})

    def leave(self, code: int, words: str = "") -> None:
        """The rank is about to exit with `code`; `words` say why where it is not 0. Limits the time it takes."""
        self._tell({"leave": code, "words": _short(words)})

    def _tell(self, message: dict[str, object]) -> None:
        # The guard may be stopped or dead; the rank must not suffer for it.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, json.dumps(message, ensure_ascii=False).encode() + b"\n")


def start(run_dir: Path, *, hang_s: float | None, grace_s: float) -> Guard:
    """Start this rank's guard.

    Args:
        run_dir: the run's folder, which need not exist; the stacks of a hang are kept in its `stacks.txt`.
        hang_s: seconds without progress after which rank 0's guard ends the run; None never.
        grace_s: seconds that the rank has to save and to leave when it is asked to end.
    """
    rank = int(os.environ.get("RANK", "0"))
    # All ranks of this start meet in it, and none of another start of the same name.
    meeting = [os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ]
    launch = "-".join(meeting) or str(os.getpid())
    folder = run_dir.absolute().with_name(f"{run_dir.name}.guard-{launch.replace(':', '_')}")
    folder.mkdir(parents=True, exist_ok=True)
    temp = _own_temp()
    messages, pipe = os.pipe()
    numbers, wakeup = os.pipe()
    settings = Settings(
        rank=rank,
        pid=os.getpid(),
        launcher=os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0,
        tag=uuid.uuid4().hex,
        temp=str(temp),
        folder=str(folder),
        report=str(run_dir.absolute() / "stacks.txt"),
        hang_s=hang_s if rank == 0 else None,
        grace_s=grace_s,
        pipe=messages,
        signals=numbers,
    )
    package = str(Path(megatron_trace.__file__).parents[1])
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "megatron_trace.supervise.guard_process",
            json.dumps(asdict(settings)),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=(messages, numbers),
        start_new_session=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": package, "TMPDIR": "/"},
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the guard of train rank {rank} did not start; see its error above")
    process.stdout.close()
    for descriptor in (messages, numbers):
        os.close(descriptor)
    os.set_blocking(pipe, False)
    os.set_blocking(wakeup, False)
    # Written by the C handler, so that the guard hears of a signal even where the rank is stuck and Python is not run.
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _forked(pipe))
    os.environ |= dict(zip(stacks.INHERITED, (settings.tag, str(folder), "1"), strict=True))
    stacks.register(f"rank{rank}")
    return Guard(pipe)


def _short(text: str) -> str:
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")


def _own_temp() -> Path:
    """Give this process and its children a folder for temporary files, which the guard removes."""
    parent = tempfile.gettempdir()
    # A cache that should survive the run.
    os.environ.setdefault(
        "TORCHINDUCTOR_CACHE_DIR", str(Path(parent) / f"torchinductor_{os.getuid()}")
    )
    temp = Path(
        tempfile.mkdtemp(prefix="mt_", dir=parent if len(parent) <= LONGEST_TEMP else "/tmp")
    )
    os.environ["TMPDIR"] = tempfile.tempdir = str(temp)
    return temp


def leave_group() -> None:
    """Make this process, a child of a train rank, deaf to the signals that its rank answers.

    torchrun signals its rank's process group, and only the rank itself is to answer: it still needs its children to
    save.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _forked(pipe: int) -> None:
    """In every forked child of the rank, Ray's included, before it runs anything else.

    A child that never calls exec cannot carry the tag, so the guard is told of it.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    leave_group()
    with suppress(OSError):
        os.write(pipe, b'{"child": %d}\n' % os.getpid())
