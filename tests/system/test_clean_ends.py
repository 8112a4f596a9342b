"""However a run ends, soon nothing of it is left, its exit code says so, and its last lines say
what happened.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_trace.supervise import leftovers

ROOT = Path(__file__).parents[2]
SMALL = [
    "run.steps=500",
    "run.save_trees=false",
    "allocation.budget=24",
    "allocation.pool=24",
    "rollout.concurrency=32",
    "evaluation.every=0",
]
LIMIT_S = 30.0
MARK = "MEGATRON_TRACE_TEST"
"""Environment variable that tells the processes of one run from all others."""


class Run:
    """The program as a user starts it, in a process group of its own as a shell would give it."""

    def __init__(self, folder: Path, *arguments: str, ranks: int = 1) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        self.temp = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # short, for Ray's sockets
        self.mark = uuid.uuid4().hex
        self.shared_memory: set[str] = set()
        torchrun = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(ranks)]
        settings = [*SMALL, f"run.directory={folder}", "run.name=run", *arguments]
        with self.log.open("w") as log:
            self.torchrun = subprocess.Popen(
                [*torchrun, "pretrain_trace.py", "--config", "configs/geo_hop_cpu.yaml", *settings],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={
                    **os.environ,
                    MARK: self.mark,
                    "TMPDIR": str(self.temp),
                    "OMP_NUM_THREADS": "1",
                },
            )

    @property
    def text(self) -> str:
        return self.log.read_text()

    def steps(self) -> int:
        """Steps that are done."""
        return max(map(int, re.findall(r"^step (\d+)/", self.text, re.MULTILINE)), default=0)

    def reach(self, step: int) -> None:
        # Two runs that start at once on a busy machine take minutes.
        self.wait(lambda: self.steps() >= step, 480.0, f"step {step}")
        self.shared_memory |= set(leftovers.mapped(self.processes()))

    def wait(self, condition: Callable[[], bool], limit_s: float, what: str) -> float:
        begin = time.monotonic()
        while not condition():
            waited = time.monotonic() - begin
            assert waited < limit_s, f"{what} was not reached within {limit_s} s:\n{self.text}"
            # The environment of a process that has just been started reads as empty for a moment.
            ended = self.torchrun.poll() is not None and not self.processes()
            assert not ended or condition(), f"the run ended before {what}:\n{self.text}"
            time.sleep(0.1)
        return time.monotonic() - begin

    def processes(self) -> dict[int, str]:
        """Names and command lines of all that lives of the run, the guards included.

        Linux may say for a while that a command line is empty; it keeps 15 characters of a name.
        """
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                marked = f"{MARK}={self.mark}".encode() in (path / "environ").read_bytes()
                if marked and leftovers.find(int(path.name)):
                    texts = [(path / name).read_bytes().decode() for name in ("comm", "cmdline")]
                    found[int(path.name)] = " ".join(texts).replace("\0", " ")
            except OSError:
                continue
        return found

    def pid(self, part: str) -> int:
        """The process whose name or command line holds `part`."""
        (pid,) = (
            pid for pid, line in self.processes().items() if part in line and "torchrun" not in line
        )
        return pid

    def rank(self, rank: int) -> int:
        """The process of a train rank."""
        ranks = [pid for pid, line in self.processes().items() if "-u pretrain_trace" in line]
        leaders = [pid for pid in ranks if os.getsid(pid) == pid]  # not what they forked
        (pid,) = (pid for pid in leaders if f"RANK={rank}".encode() in environment(pid))
        return pid

    def gone(self, limit_s: float = LIMIT_S) -> None:
        """Soon nothing is left, and the exit code says that this was no good end."""
        begin = time.monotonic()
        while left := self.processes():
            if time.monotonic() - begin > limit_s:
                pytest.fail(f"left after {limit_s} s: {left}\n{self.text}")
            time.sleep(0.1)
        print(f"gone after {time.monotonic() - begin:.1f} s; the log:\n{self.text}")
        assert self.torchrun.wait(5) != 0
        assert self.shared_memory and not self.shared_memory & leftovers.shared_memory()
        kept = [path for path in self.temp.rglob("*") if path.is_socket()]
        assert not kept and not list(self.folder.glob("*.guard*"))
        assert {path.name.split("_")[0] for path in self.temp.iterdir()} <= {"torchelastic", "mt"}

    def last_lines(self, count: int = 4) -> str:
        return "\n".join(self.text.rstrip().splitlines()[-count:])


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def make(*arguments: str, ranks: int = 1) -> Run:
        folder = tmp_path / str(len(runs))
        folder.mkdir()
        runs.append(Run(folder, *arguments, ranks=ranks))
        return runs[-1]

    yield make
    for run in runs:
        for pid in run.processes():
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(run.temp, ignore_errors=True)


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_and_another_beside_it_goes_on_until_ctrl_c(
    start: Start,
) -> None:
    killed, other = start(), start("run.seed=1")
    killed.reach(1)
    os.kill(killed.rank(0), signal.SIGKILL)
    killed.gone()
    assert "train rank 0 was killed" in killed.last_lines()
    other.reach(other.steps() + 2)
    os.killpg(other.torchrun.pid, signal.SIGINT)
    other.gone()
    assert "stopped by SIGINT" in other.last_lines()


@pytest.mark.slow
def test_torchruns_signals_reach_nothing_but_the_ranks(start: Start) -> None:
    """They still need Ray, and the processes that write checkpoints, to end well."""
    run = start("checkpoint.every=1")
    run.reach(2)
    rank = run.rank(0)
    group = {
        line for pid, line in run.processes().items() if os.getpgid(pid) == rank and pid != rank
    }
    # Python's resource tracker ignores the signals by itself.
    assert all("multiprocessing.resource_tracker" in line for line in group)
    run.torchrun.terminate()
    run.gone()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_to_torchrun_stops_the_run(start: Start, ranks: int) -> None:
    run = start(ranks=ranks)
    run.reach(1)
    run.torchrun.terminate()
    run.gone()
    assert "stopped by SIGTERM" in run.last_lines()
    assert (run.folder / "run" / "report.html").exists()


@pytest.mark.slow
def test_sigterm_to_every_process_stops_the_run(start: Start) -> None:
    """As SLURM's scancel does."""
    run = start(ranks=2)
    run.reach(1)
    for pid in run.processes():
        os.kill(pid, signal.SIGTERM)
    run.gone()
    assert "stopped by SIGTERM" in run.last_lines()


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_run_at_once(start: Start) -> None:
    run = start(ranks=2)
    run.reach(1)
    os.kill(run.rank(1), signal.SIGSTOP)  # no collective can end
    os.killpg(run.torchrun.pid, signal.SIGINT)
    time.sleep(5)
    assert run.processes()
    os.killpg(run.torchrun.pid, signal.SIGINT)
    run.gone(10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "words"),
    [
        ("rank 0", "train rank 0 was killed"),
        ("rank 1", "train rank 1 died; ending what it left"),
        ("torchrun", "torchrun died"),
        ("raylet/raylet", "raylet died"),
        ("gcs_server", "gcs_server died"),
        ("every rank", "train rank 0 was killed"),
    ],
)
def test_killing_a_process_that_is_needed_ends_the_run(
    start: Start, victim: str, words: str
) -> None:
    run = start(ranks=2)
    run.reach(1)
    victims = {
        "rank 0": lambda: [run.rank(0)],
        "rank 1": lambda: [run.rank(1)],
        "torchrun": lambda: [run.torchrun.pid],
        "every rank": lambda: [run.rank(0), run.rank(1)],
    }
    for pid in victims.get(victim, lambda: [run.pid(victim)])():
        os.kill(pid, signal.SIGKILL)
    run.gone()
    assert words in run.text


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["ray::Worker", "VLLM::EngineCor"])
def test_a_worker_that_dies_for_good_ends_the_run(start: Start, victim: str) -> None:
    run = start("rollout.max_restarts=0")
    run.reach(1)
    os.kill(run.pid(victim), signal.SIGKILL)
    run.gone()
    assert "worker 0 died after 0 restarts" in run.last_lines()


@pytest.mark.slow
def test_a_run_survives_the_death_of_a_worker_without_leaving_its_engine(start: Start) -> None:
    run = start()
    run.reach(1)
    engine = run.pid("VLLM::EngineCor")
    os.kill(run.pid("ray::Worker"), signal.SIGKILL)
    run.reach(run.steps() + 2)
    assert engine not in run.processes()
    run.torchrun.send_signal(signal.SIGINT)
    run.gone()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["VLLM::EngineCor", "ray::Worker", "rank 0", "rank 1"])
def test_a_hang_prints_the_stacks_of_every_process_and_ends_the_run(
    start: Start, victim: str
) -> None:
    run = start("stop.hang_s=40", ranks=2)
    run.reach(1)
    os.kill(run.rank(int(victim[-1])) if "rank" in victim else run.pid(victim), signal.SIGSTOP)
    run.wait(lambda: "no progress in phase" in run.text, 90.0, "the hang was not noticed")
    run.gone(LIMIT_S + 5)  # the stacks are collected first
    roles = re.findall(r"^--- (\w+), host \S+, pid \d+: (stacks|no answer)", run.text, re.MULTILINE)
    assert sorted(role for role, _ in roles) == ["engine", "rank0", "rank1", "worker"]
    assert [answer for _, answer in roles].count("stacks") == 3
    assert "no progress in phase" in run.last_lines()
    assert "stacks" in (run.folder / "run" / "stacks.txt").read_text()
