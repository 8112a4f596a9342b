"""One run at a time has a run's folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megatron_trace.config import Config
from megatron_trace.training import run_folder
from megatron_trace.training.identity import OtherRun
from megatron_trace.training.run_folder import claim, move_aside, prepare_folder, trees_file

HOLD = """
import os, sys, time
from pathlib import Path
from megatron_trace.training.run_folder import claim
claim(Path(sys.argv[1]))
if "fork" in sys.argv and os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder `run`; with "fork" a child of one that is gone."""
    pids: list[int] = []

    def start(*arguments: str) -> int:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "run"), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as output:
            pids.append(int(output.readline()))
        if arguments:
            process.wait()
        return pids[-1]

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize("arguments", [(), ("fork",)])
def test_a_folder_that_a_run_or_its_child_holds_is_refused(
    tmp_path, holder, monkeypatch, arguments
) -> None:
    holder(*arguments)
    monkeypatch.setattr(run_folder, "CLAIM_S", 0.2)
    monkeypatch.setattr(run_folder, "POLL_S", 0.05)
    with pytest.raises(OtherRun, match=r"a run is going on in .*run; choose another run\.name"):
        claim(tmp_path / "run")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]
    assert not list((tmp_path / "run").iterdir())


def test_what_a_killed_run_left_gets_time_to_end(tmp_path, holder, monkeypatch) -> None:
    pid = holder("fork")
    ended: list[float] = []

    def sleep_and_end_it(seconds: float) -> None:
        if not ended:
            os.kill(pid, signal.SIGKILL)
            ended.append(seconds)
        time.sleep(0.05)

    monkeypatch.setattr(
        run_folder,
        "time",
        type("Clock", (), {"monotonic": time.monotonic, "sleep": sleep_and_end_it}),
    )
    claim(tmp_path / "run")
    assert ended == [run_folder.POLL_S]


def test_a_file_system_without_locks_is_good_enough(tmp_path, monkeypatch) -> None:
    def unsupported(descriptor: int, blocking: bool) -> bool:
        raise OSError("No locks available")

    monkeypatch.setattr(run_folder, "lock_descriptor", unsupported)
    claim(tmp_path / "run")
    assert (tmp_path / "run").is_dir()


def test_an_earlier_run_is_moved_to_the_first_free_number(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / str(number)).touch()
        move_aside(tmp_path / "run")
    assert [path.name for path in sorted(tmp_path.glob("*/*"))] == ["0", "1", "2"]
    assert {path.name for path in tmp_path.iterdir()} == {"run.1", "run.2", "run.3"}


def test_trees_of_steps_that_are_sampled_again_go(tmp_path: Path) -> None:
    config = Config()
    config.run.directory, config.run.name = str(tmp_path), "run"
    files = [trees_file(tmp_path / "run", step) for step in (1, 2, 3)]
    files[0].parent.mkdir(parents=True)
    for file in files:
        file.touch()
    prepare_folder(config, step=2)
    assert [file.exists() for file in files] == [True, True, False]
    assert (tmp_path / "run" / "config.yaml").exists()
