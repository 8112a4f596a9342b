"""What a run leaves is found wherever it went, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import pytest

from megatron_trace.supervise import leftovers
from megatron_trace.supervise.stacks import TAG

LEAVE = """
import os, sys, time
if os.fork():
    os._exit(0)  # the grandchild is an orphan
os.setsid()
if "deaf" in sys.argv:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""
Orphan = Callable[..., leftovers.Process]


@pytest.fixture
def orphan() -> Iterator[Orphan]:
    born: list[int] = []

    def make(tag: str, *arguments: str) -> leftovers.Process:
        process = subprocess.Popen(
            [sys.executable, "-c", LEAVE, *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, TAG: tag},
        )
        assert process.stdout is not None
        with process.stdout as output:
            born.append(int(output.readline()))
        process.wait()
        found = leftovers.find(born[-1])
        assert found is not None
        return found

    yield make
    for pid in born:
        if leftovers.find(pid):
            os.kill(pid, signal.SIGKILL)


def test_orphans_are_found_by_their_tag_and_ended_even_if_deaf(orphan: Orphan) -> None:
    mine, deaf, other = orphan("mine"), orphan("mine", "deaf"), orphan("mine2")
    assert leftovers.tagged("mine") == {mine, deaf}
    begin = time.monotonic()
    assert not leftovers.end_all(lambda: leftovers.tagged("mine"), grace_s=0.5)
    assert time.monotonic() - begin < 5
    assert not leftovers.lives(mine) and not leftovers.lives(deaf)
    assert leftovers.lives(other)


def test_a_process_that_one_look_missed_is_ended_too(orphan: Orphan) -> None:
    missed = orphan("missed")
    found = iter([set(), {missed}, {missed}])
    assert not leftovers.end_all(lambda: next(found, set()), grace_s=0.5)
    assert not leftovers.lives(missed)


def test_a_stopped_process_is_ended_too(orphan: Orphan) -> None:
    stopped = orphan("stopped")
    os.kill(stopped.pid, signal.SIGSTOP)
    assert not leftovers.end_all(lambda: leftovers.tagged("stopped"), grace_s=0.2)
    assert not leftovers.lives(stopped)


def test_a_process_that_has_the_pid_of_a_dead_one_is_not_signalled() -> None:
    this = leftovers.find(os.getpid())
    assert leftovers.lives(this)
    # What is known of a process that had this id before.
    earlier = leftovers.Process(os.getpid())
    pid, began = earlier._ident
    earlier._ident = (pid, began - 1)
    assert earlier != this
    assert not leftovers.lives(earlier)
    leftovers.send([earlier], signal.SIGKILL)


def test_shared_memory_goes_unless_it_is_older_or_in_use() -> None:
    older, used = SharedMemory(create=True, size=16), None
    try:
        before = leftovers.shared_memory()
        used = SharedMemory(create=True, size=16)
        lost = leftovers.SHARED_MEMORY / f"psm_test_{os.getpid()}"
        lost.touch()
        older.close()
        leftovers.remove_shared_memory(before)
        assert not lost.exists()
        assert {older.name, used.name} <= leftovers.shared_memory()
    finally:
        for memory in filter(None, (older, used)):
            memory.close()
            memory.unlink()


def test_a_folder_is_removed_but_for_the_logs(tmp_path: Path) -> None:
    session = tmp_path / "temp" / "ray_x" / "session_1"
    for name in ("logs/worker.out", "sockets/raylet", "runtime/deep/file"):
        (session / name).parent.mkdir(parents=True, exist_ok=True)
        (session / name).touch()
    (session.parent / "session_latest").symlink_to(session)
    (tmp_path / "temp" / "vllm").touch()
    assert leftovers.clear_folder(tmp_path / "temp") == [session / "logs"]
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [
        session / "logs" / "worker.out"
    ]
    assert sorted(path.name for path in session.iterdir()) == ["logs"]


def test_a_folder_without_logs_is_removed_whole(tmp_path: Path) -> None:
    (tmp_path / "temp" / "a").mkdir(parents=True)
    (tmp_path / "temp" / "a" / "b").touch()
    assert leftovers.clear_folder(tmp_path / "temp") == []
    assert not (tmp_path / "temp").exists()
    assert leftovers.clear_folder(tmp_path / "never") == []
