"""What a call may use, and how it ended."""

from dataclasses import dataclass
from typing import Literal

from megatron_trace.config.setting import setting

Status = Literal["ok", "error", "timeout", "memory", "killed", "output"]
"""How a call ended:

- `ok`: it ran to its end, or left with exit code 0.
- `error`: an exception, whose trace is in `stderr`, or another exit code.
- `timeout`: its CPU time or its time was over.
- `memory`: a MemoryError ended it.
- `killed`: a signal ended it, such as that of a stack overflow.
- `output`: it printed more than it may. What is beyond is lost, and it was killed.

They are for the agent. Code can imitate `error` and `memory`, and it can leave with exit code 0
whenever it likes: `ok` does not mean that it computed anything.
"""


@dataclass(frozen=True)
class Limits:
    """Of every call. There is always one process of one thread."""

    cpu_s: int = setting(5, "CPU seconds of a call", at_least=1)
    wall_s: float = setting(20.0, "seconds of a call", above=0)
    memory_mib: int = setting(
        1024,
        "address space of a call in MiB, with the interpreter and sympy",
        at_least=256,
        reason="the interpreter itself needs about that much",
    )
    scratch_mib: int = setting(16, "size of a call's folder in MiB", at_least=1)
    scratch_files: int = setting(256, "most files and folders in a call's folder", at_least=1)
    open_files: int = setting(32, "most open files of a call", at_least=8)
    output_bytes: int = setting(
        16384, "most bytes that a call may print, for each of its two outputs", at_least=1
    )


@dataclass(frozen=True)
class Outcome:
    """What a call brought.

    Attributes:
        stdout, stderr: what it printed. Bytes that are no UTF-8 are replaced by U+FFFD, so there
            are no lone surrogates; there may be zero characters.
    """

    stdout: str
    stderr: str
    status: Status
