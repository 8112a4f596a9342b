"""A toy rank under guard: however it ends, what it left goes, and the last lines say what happened."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.supervise import leftovers

ROOT = Path(__file__).parents[3]
TOY = """
import os, signal, subprocess, sys, tempfile, time
from pathlib import Path
from megatron_trace.supervise.guard import start
from megatron_trace.supervise.stop import Stop, Stopped

def spawn(*deaf):
    # one that is re-parented, and one that is only forked
    subprocess.run([sys.executable, "-c", '''
import os, signal, sys, time
for number in sys.argv[1:]: signal.signal(int(number), signal.SIG_IGN)
if os.fork(): os._exit(0)
time.sleep(100)
''', *map(str, deaf)])
    if not os.fork():
        time.sleep(100)

def stuck_in_a_phase():
    time.sleep(100)

def until_stopped(beat=lambda: None):
    try:
        while True:
            stop.check()
            beat()
            time.sleep(0.05)
    except Stopped as error:
        guard.leave(error.exit_code, f"{error}; step 7 is saved")
        sys.exit(error.exit_code)

guard = start(Path(sys.argv[1]), hang_s=HANG_S, grace_s=GRACE_S)
stop = Stop()
Path(tempfile.mkdtemp()).joinpath("file").touch()
guard.hint("to continue run it again")
guard.beat("sampling")
print(os.getpid(), flush=True)
"""
LAUNCHER = "import subprocess, sys, time; subprocess.run(sys.argv[1:])"


MARK = "MEGATRON_TRACE_TEST"
MEETING = {"MASTER_ADDR": "host", "MASTER_PORT": "1"}
"""Of the ranks of one start."""


class Toy:
    """A rank that runs `TOY` and then some more code."""

    def __init__(
        self,
        folder: Path,
        code: str,
        *,
        hang_s: float | None = None,
        grace_s: float = 5.0,
        launcher: str = "",
        **environment: str,
    ) -> None:
        # The paths of pytest's folders are too long for Ray's sockets.
        self.temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
        self.mark = uuid.uuid4().hex
        program = TOY.replace("HANG_S", str(hang_s)).replace("GRACE_S", str(grace_s)) + code
        command = [sys.executable, "-c", program, str(folder / "run")]
        if launcher:
            command = [sys.executable, "-c", launcher, *command]
            environment["TORCHELASTIC_RUN_ID"] = "none"
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.temp), MARK: self.mark, **environment},
        )
        assert self.process.stdout is not None
        self.pid = int(self.process.stdout.readline())

    def processes(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return [pid for pid in found if leftovers.find(pid)]

    def end(self, limit_s: float = 15.0) -> tuple[int, str]:
        """Exit code and what was printed, once all processes are gone and the temporary files with
        them.
        """
        # The guard holds stderr open until it has cleaned up.
        _, printed = self.process.communicate(timeout=limit_s)
        assert not self.processes()
        self.temp.rmdir()  # it is empty
        return self.process.returncode, printed


Start = Callable[..., Toy]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    toys: list[Toy] = []

    def make(code: str, *, folder: str = "", **settings: Any) -> Toy:
        (tmp_path / folder).mkdir(exist_ok=True)
        toys.append(Toy(tmp_path / folder, code, **settings))
        return toys[-1]

    yield make
    for toy in toys:
        for pid in toy.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(toy.temp, ignore_errors=True)


def test_a_good_end_is_silent_and_leaves_nothing(start: Start, tmp_path: Path) -> None:
    toy = start("guard.leave(0)")
    assert toy.end() == (0, "")
    assert not list(tmp_path.iterdir())


def test_a_killed_rank_leaves_no_orphan_and_the_last_line_says_how_to_continue(
    start: Start,
) -> None:
    toy = start("spawn(int(signal.SIGTERM))\nuntil_stopped()")
    wait_for(lambda: len(toy.processes()) == 4)  # the rank, its guard and two children
    toy.process.kill()
    code, printed = toy.end()
    assert code == -signal.SIGKILL
    assert printed.splitlines()[-2:] == ["train rank 0 was killed", "to continue run it again"]


def test_of_two_runs_side_by_side_one_survives_the_other(start: Start) -> None:
    one, other = (
        start("spawn()\nuntil_stopped()", folder="1"),
        start("spawn()\nuntil_stopped()", folder="2"),
    )
    wait_for(lambda: len(one.processes()) == len(other.processes()) == 4)
    one.process.kill()
    one.end()
    assert len(other.processes()) == 4
    other.process.terminate()
    assert other.end()[0] == 128 + signal.SIGTERM


def test_a_signal_lets_the_rank_say_its_words(start: Start) -> None:
    toy = start("spawn()\nuntil_stopped()")
    toy.process.send_signal(signal.SIGINT)
    code, printed = toy.end()
    assert code == 128 + signal.SIGINT
    assert printed.splitlines() == [
        "stopped by SIGINT; step 7 is saved",
        "to continue run it again",
    ]


def test_a_signal_to_the_group_leaves_the_ranks_children_alone(start: Start) -> None:
    code = """
read, write = os.pipe()
child = os.fork()
if not child:
    time.sleep(1.0)
    os.write(write, b"saved")
    os._exit(0)
time.sleep(0.2)
print("forked", flush=True)
try:
    until_stopped()
finally:
    assert os.read(read, 5) == b"saved"
    print("saved", flush=True)
"""
    toy = start(code)
    assert toy.process.stdout is not None and toy.process.stdout.readline() == "forked\n"
    os.killpg(toy.pid, signal.SIGTERM)
    assert toy.process.stdout.readline() == "saved\n"


def test_a_rank_that_does_not_end_in_time_is_killed(start: Start) -> None:
    toy = start("stuck_in_a_phase()", grace_s=1.0)
    toy.process.terminate()
    code, printed = toy.end()
    assert code == -signal.SIGKILL
    assert "did not end within 1 s, in phase 'sampling'; it is killed" in printed
    assert "the run was ended: SIGTERM" in printed


def test_a_rank_that_lingers_after_its_last_words_is_killed(start: Start) -> None:
    toy = start("guard.leave(1, 'ended by ValueError')\nstuck_in_a_phase()", grace_s=1.0)
    assert toy.end()[0] == -signal.SIGKILL


def test_a_second_signal_kills_at_once(start: Start) -> None:
    toy = start("stop.check = lambda: None\nuntil_stopped()", grace_s=100.0)
    toy.process.terminate()
    time.sleep(2.2)
    toy.process.terminate()
    assert toy.end(5.0)[0] == -signal.SIGKILL


def test_a_hang_prints_the_stacks_and_ends_the_run(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    toy = start("spawn()\nguard.beat('learning')\nstuck_in_a_phase()", hang_s=1.0, grace_s=1.0)
    code, printed = toy.end()
    assert code != 0
    assert "no progress in phase 'learning' for 1 s" in printed
    assert "in stuck_in_a_phase" in printed and "--- rank0, host" in printed
    assert "in stuck_in_a_phase" in (tmp_path / "run" / "stacks.txt").read_text()
    assert printed.splitlines()[-1] == "to continue run it again"


def test_beats_keep_a_run_alive(start: Start) -> None:
    # A busy machine stands still for two seconds at times.
    toy = start("until_stopped(beat=lambda: guard.beat('sampling'))", hang_s=5.0)
    time.sleep(8.0)
    assert toy.process.poll() is None
    toy.process.terminate()
    assert "no progress" not in toy.end()[1]


def test_a_stopped_rank_is_a_hang_and_does_not_block_the_guard(start: Start) -> None:
    toy = start("until_stopped(beat=lambda: guard.beat('sampling'))", hang_s=1.0, grace_s=1.0)
    os.kill(toy.pid, signal.SIGSTOP)
    code, printed = toy.end()
    assert code == -signal.SIGKILL
    assert "no answer, state T (stopped)" in printed


def test_the_death_of_torchrun_stops_the_run(start: Start) -> None:
    toy = start("until_stopped()", launcher=LAUNCHER)
    toy.process.kill()
    assert toy.end()[1].splitlines()[0] == "torchrun died; stopped by SIGTERM; step 7 is saved"


def test_the_last_lines_come_after_torchruns_own(start: Start) -> None:
    launcher = LAUNCHER + "; time.sleep(1); print('report', file=sys.stderr)"
    toy = start("guard.leave(1, 'ended by ValueError')", launcher=launcher)
    assert toy.end()[1].splitlines() == [
        "report",
        "ended by ValueError",
        "to continue run it again",
    ]


def test_the_death_of_a_process_that_is_watched_stops_the_run(start: Start) -> None:
    code = """
child = subprocess.Popen(["sleep", "100"])
with guard.watching({"raylet": child.pid}):
    time.sleep(0.5)
    child.kill()
    child.wait()
    until_stopped()
"""
    code, printed = start(code).end()
    assert code == 128 + signal.SIGTERM
    assert printed.splitlines()[-2] == "raylet died; stopped by SIGTERM; step 7 is saved"


def test_a_process_that_is_no_longer_watched_may_end(start: Start) -> None:
    code = """
child = subprocess.Popen(["sleep", "100"])
with guard.watching({"raylet": child.pid}):
    pass
child.kill()
child.wait()
time.sleep(1)
guard.leave(0)
"""
    assert start(code).end() == (0, "")


def test_the_other_ranks_go_when_rank_0_is_gone(start: Start) -> None:
    first, second = (start("until_stopped()", RANK=rank, **MEETING) for rank in ("0", "1"))
    os.kill(second.pid, signal.SIGSTOP)  # as one that waits in a collective for ever
    first.process.kill()
    first.process.wait()
    assert second.process.wait(10) == -signal.SIGKILL


def test_rank_0_does_not_wait_its_whole_time_for_a_rank_that_died(start: Start) -> None:
    # It would save, which it cannot without the other rank.
    hangs_in_a_collective = "stop.check = lambda: None\nuntil_stopped()"
    leader = start(hangs_in_a_collective, grace_s=100.0, RANK="0", **MEETING)
    follower = start(hangs_in_a_collective, RANK="1", **MEETING)
    os.kill(follower.pid, signal.SIGKILL)
    _, said = leader.end(limit_s=30.0)
    assert "train rank 0 waits for a train rank that is gone; it is killed" in said
    assert "the run was ended: train rank 1 died" in said
    follower.end()


def test_another_start_of_the_same_run_ends_nobody(start: Start) -> None:
    going_on = start("until_stopped()", RANK="1", **MEETING)
    other = start("until_stopped()", RANK="0", MASTER_ADDR="host", MASTER_PORT="2")
    other.process.kill()
    other.process.wait()
    time.sleep(4.0)  # a rank of its own would be gone after three
    assert going_on.process.poll() is None


def wait_for(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
