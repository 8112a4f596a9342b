"""A guard for every train rank: however the rank ends, nothing is left and the user knows why.

`start` comes first in a train rank, before anything is spawned. It tags the environment, makes a
folder for the run's temporary files, and starts the process of `guard_process.py`.
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
from megatron_trace.supervise.guard_settings import GuardSettings

MAX_TEMP_PARENT = 28
"""Longest path of the folder above the temporary files. Ray's sockets lie below it, and the path of
a Unix socket has at most 107 bytes."""

MAX_TEXT_BYTES = 1500
"""Longest text of a message. The kernel writes up to 4096 bytes to a pipe in one piece."""


class Guard:
    """A train rank's end of the pipe to its guard. Without its guard a run continues."""

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
        """Inside the block, end the run if one of `processes` (name -> pid) dies."""
        for name, pid in processes.items():
            self._tell({"watch": name, "pid": pid})
        try:
            yield
        finally:
            self._tell({"unwatch": True})

    def leave(self, code: int, words: str = "") -> None:
        """The rank is about to exit with `code`. From now on its time is limited.

        Args:
            words: why `code` is not 0.
        """
        self._tell({"leave": code, "words": _short(words)})

    def _tell(self, message: dict[str, object]) -> None:
        # The guard may be stopped or dead, and the rank must not suffer for that.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, json.dumps(message, ensure_ascii=False).encode() + b"\n")


def start(run_dir: Path, *, hang_s: float | None, grace_s: float) -> Guard:
    """Start this rank's guard.

    Args:
        run_dir: the run's folder, which need not exist; the stacks of a hang are kept in its
            `stacks.txt`.
        hang_s: seconds without progress after which rank 0's guard ends the run; None never.
        grace_s: seconds that the rank has to save and to leave when it is asked to end.

    Raises:
        OSError: a folder cannot be made.
        RuntimeError: the guard did not start.
    """
    rank = train_rank()
    folder = _guard_folder(run_dir.absolute())
    messages, pipe = os.pipe()
    numbers, wakeup = os.pipe()
    settings = GuardSettings(
        rank=rank,
        pid=os.getpid(),
        launcher=os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else 0,
        tag=uuid.uuid4().hex,
        temp=str(_make_temp_folder()),
        folder=str(folder),
        stacks_file=str(run_dir.absolute() / "stacks.txt"),
        hang_s=hang_s if rank == 0 else None,
        grace_s=grace_s,
        pipe=messages,
        signals=numbers,
    )
    _launch(settings)
    for descriptor in (messages, numbers):
        os.close(descriptor)
    os.set_blocking(pipe, False)
    os.set_blocking(wakeup, False)
    # Python's handlers do not run while the rank is stuck in C. The C handler writes the signal's
    # number to this pipe in any case, so that the guard hears of the signal.
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: _forked(pipe))
    os.environ |= dict(zip(stacks.INHERITED, (settings.tag, str(folder), "1"), strict=True))
    stacks.register(f"rank{rank}")
    return Guard(pipe)


def train_rank() -> int:
    """Number of this train rank, which torchrun puts into the environment; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def _guard_folder(run_dir: Path) -> Path:
    """Make the folder that all ranks of this start share, and no rank of another start."""
    address = [os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT") if name in os.environ]
    start_name = "-".join(address) or str(os.getpid())
    folder = run_dir.with_name(f"{run_dir.name}.guard-{start_name.replace(':', '_')}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _make_temp_folder() -> Path:
    """Give this process and its children a folder for temporary files, which the guard removes."""
    parent = tempfile.gettempdir()
    # A cache that should survive the run.
    cache = Path(parent) / f"torchinductor_{os.getuid()}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    above = parent if len(parent) <= MAX_TEMP_PARENT else "/tmp"
    temp = Path(tempfile.mkdtemp(prefix="mt_", dir=above))
    os.environ["TMPDIR"] = tempfile.tempdir = str(temp)
    return temp


def _launch(settings: GuardSettings) -> None:
    """Start the guard's process and wait until it watches this rank."""
    # This package comes first, before what the rank itself has: libraries may be found only there.
    package = str(Path(megatron_trace.__file__).parents[1])
    inherited = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    python_path = os.pathsep.join([package, *inherited])
    arguments = ["-m", "megatron_trace.supervise.guard_process", json.dumps(asdict(settings))]
    # A session that is not the rank's: torchrun and the terminal signal process groups, and the
    # guard must outlive them. It stands in `/` so that it keeps no folder busy.
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        pass_fds=(settings.pipe, settings.signals),
        start_new_session=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": python_path, "TMPDIR": "/"},
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(
            f"the guard of train rank {settings.rank} did not start; see its error above"
        )
    process.stdout.close()


def leave_group() -> None:
    """Make this process, a child of a train rank, deaf to the signals that its rank answers.

    torchrun signals the process group of its rank. Only the rank may answer, because it needs its
    children to save.
    """
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _forked(pipe: int) -> None:
    """In every forked child of the rank, Ray's included, before it runs anything else.

    A child that never calls exec keeps the environment from before the tag, so the guard is told of
    the child.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    leave_group()
    with suppress(OSError):
        os.write(pipe, b'{"child": %d}\n' % os.getpid())


def _short(text: str) -> str:
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
