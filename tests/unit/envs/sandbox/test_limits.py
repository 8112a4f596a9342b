"""Every limit holds, and the caller is told which one it was."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from megatron_trace.config.error import SettingError
from megatron_trace.envs.sandbox import Limits, Sandbox
from tests.unit.envs.sandbox.conftest import LIMITS

ENDLESS = [
    "while True: pass",
    "10 ** 10 ** 10",
    "import re; re.match(r'(a+)+b', 'a' * 60)",
    "import signal\nfor n in range(1, 65):\n"
    "    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    "while True: pass",
    "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
]


@pytest.mark.parametrize("codes", [ENDLESS[:2], pytest.param(ENDLESS[2:], marks=pytest.mark.slow)])
def test_code_that_never_ends_is_ended(sandbox: Sandbox, codes: list[str]) -> None:
    with ThreadPoolExecutor(len(codes)) as pool:
        outcomes = list(pool.map(sandbox.run, ["print(1)\n" + code for code in codes]))
    assert [(one.status, one.stdout) for one in outcomes] == [("timeout", "1\n")] * len(codes)


def test_cpu_time_is_limited_however_long_a_call_may_take() -> None:
    sandbox = Sandbox(Limits(cpu_s=1, wall_s=500), size=1)
    assert sandbox.run("while True: pass").status == "timeout"
    sandbox.close()


def test_code_that_waits_is_ended_after_its_seconds() -> None:
    sandbox = Sandbox(Limits(wall_s=0.5), size=1)
    begin = time.monotonic()
    assert sandbox.run("print(1)\nimport time; time.sleep(100)").status == "timeout"
    assert 0.5 <= time.monotonic() - begin < 10
    sandbox.close()


@pytest.mark.parametrize(
    "code",
    [
        "bytearray(10**9)",
        "a = []\nwhile True: a.append(bytearray(10**6))",
        "import mmap; mmap.mmap(-1, 10**9)",
        "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1)); bytearray(10**9)",
        "import numpy; numpy.zeros(10**9)",
    ],
)
def test_memory_is_limited(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run(code)
    assert outcome.status in ("memory", "error"), outcome
    assert outcome.status == "memory" or "not allowed" in outcome.stderr or "mmap" in code


@pytest.mark.parametrize(
    "call",
    [
        "shmget(0, 1000000, 0o1777)",
        "memfd_create(b'a', 0)",
        "mq_open(b'/a', 0o102, 0o600, None)",
        "semget(0, 100, 0o1777)",
    ],
)
def test_there_is_no_memory_beside(sandbox: Sandbox, call: str) -> None:
    code = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    outcome = sandbox.run(code + f"print(libc.{call}, os.strerror(ctypes.get_errno()))")
    assert outcome.stdout == "-1 Function not implemented\n"


def test_the_folder_is_limited(sandbox: Sandbox) -> None:
    code = (
        "done = 0\ntry:\n    for n in range(100):\n"
        "        with open(str(n), 'wb') as file: file.write(bytes(2**20))\n"
        "        done += 1\nexcept OSError as error: print(done, error.strerror)"
    )
    assert sandbox.run(code).stdout == f"{LIMITS.scratch_mib} No space left on device\n"


def test_a_file_is_limited(sandbox: Sandbox) -> None:
    outcome = sandbox.run("open('a', 'wb').truncate(10**8)")
    assert "File too large" in outcome.stderr


def test_empty_files_are_counted(sandbox: Sandbox) -> None:
    code = (
        "import os\nfor n in range(10**6):\n    try: os.mkdir(str(n))\n"
        "    except OSError as error: print(n, error.strerror); break"
    )
    assert sandbox.run(code).stdout == f"{LIMITS.scratch_files} No space left on device\n"


def test_open_files_are_limited(sandbox: Sandbox) -> None:
    code = (
        "import os, resource as r\nkept = []\ntry:\n    while True: kept.append(os.dup(0))\n"
        "except OSError as error: print(len(kept) + 3, error.strerror)\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (999, 999))"
    )
    outcome = sandbox.run(code)
    assert outcome.stdout == f"{LIMITS.open_files} Too many open files\n"
    assert "not allowed to raise maximum limit" in outcome.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("rest", ["", "\nimport time; time.sleep(60)", "\nprint('more', file=out)"])
def test_a_flood_is_cut(sandbox: Sandbox, stream: str, rest: str) -> None:
    code = f"import sys\nout = sys.{stream}\nprint('a' + 'é' * 5000, file=out)" + rest
    begin = time.monotonic()
    outcome = sandbox.run(code)
    assert outcome.status == "output" and time.monotonic() - begin < 15
    # The cut is in the middle of a character.
    assert getattr(outcome, stream) == "a" + "é" * (LIMITS.output_bytes // 2 - 1)


def test_an_endless_flood_is_cut(sandbox: Sandbox) -> None:
    flood = "import os\nwhile True:\n    os.write(1, b'x' * 99999); os.write(2, b'y' * 99999)"
    outcome = sandbox.run(flood)
    assert outcome.status == "output" and len(outcome.stdout) == LIMITS.output_bytes


def test_output_of_just_the_most_bytes_is_not_cut(sandbox: Sandbox) -> None:
    outcome = sandbox.run(f"print('x' * {LIMITS.output_bytes - 1})")
    assert outcome.status == "ok" and len(outcome.stdout) == LIMITS.output_bytes


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('x' * 10**7)",
        "class E(Exception):\n    def __str__(self): return 'x' * 10**7\nraise E",
        "raise ExceptionGroup('x' * 10**6, [ValueError('y' * 10**6)] * 10)",
    ],
)
def test_the_text_of_an_exception_is_cut(sandbox: Sandbox, code: str) -> None:
    outcome = sandbox.run(code)
    assert outcome.status == "output" and len(outcome.stderr) == LIMITS.output_bytes


def test_an_exception_that_cannot_be_shown_is_an_error(sandbox: Sandbox) -> None:
    code = "class E(Exception):\n    def __str__(self): raise self\n    __repr__ = __str__\nraise E"
    assert sandbox.run(code).status == "error"


def test_a_limit_out_of_its_bounds_is_refused() -> None:
    with pytest.raises(SettingError, match="cpu_s"):
        Sandbox(Limits(cpu_s=0))
