"""What a run needs of its surroundings and may not find: a home folder, a user's name, a terminal."""

import io
import os
import pwd
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any


def settle_in() -> None:
    """Replace what is missing. Call it before any library is imported or any file is opened."""
    _open_standard_files()
    for name in ("stdout", "stderr"):
        setattr(sys, name, _lasting(getattr(sys, name)))
    _give_home()


class _LastingFile(io.FileIO):
    """A file that may be gone: a closed pipe, a closed terminal, a full disk."""

    def write(self, data: Any) -> int:
        """Write `data`, or drop it. What a run prints is never worth the run."""
        with suppress(OSError):
            return super().write(data)
        return len(data)


def _lasting(stream: Any) -> Any:
    """A text file like `stream`, on the same descriptor, that can always be written to."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream  # a test's or a notebook's
    raw = _LastingFile(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _open_standard_files() -> None:
    """Give descriptors 0, 1 and 2 a file where they are closed.

    The next file that is opened would get such a number, and all that is printed would go into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)
            # Python sets it to None where the descriptor was closed.
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _give_home() -> None:
    """Point HOME to a temporary folder where this user cannot write into it.

    Ray, vLLM, transformers, Triton and others keep caches and keys in it, each in a place of its
    own, and fail in the middle of a run.
    """
    user = os.getuid()
    if not _writable(os.path.expanduser("~")):
        home = Path(tempfile.gettempdir()) / f"trace_home_{user}"
        # The same folder for the next run, so that the caches are used again.
        home.mkdir(mode=0o700, exist_ok=True)
        # Somebody else may have made it, and could read or change what is in it.
        if home.is_symlink() or home.stat().st_uid != user:
            home = Path(tempfile.mkdtemp(prefix="trace_home_"))
        os.environ["HOME"] = str(home)
    try:
        pwd.getpwuid(user)
    except KeyError:
        # A container may run under a number that has no name. torch asks for one.
        os.environ.setdefault("USER", f"user{user}")


def _writable(folder: str) -> bool:
    # Permissions alone do not tell: for root all folders have them.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
