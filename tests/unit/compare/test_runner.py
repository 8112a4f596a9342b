import os
import signal
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from megatron_trace.compare import runner
from megatron_trace.compare.grid import make_grid, strategy_variant
from megatron_trace.compare.runner import Interrupted, work_through

TRIALS = make_grid([strategy_variant("uniform"), strategy_variant("vip")], [8], [0, 1])


class FakeJob:
    """Ends after some looks at it."""

    alive = 0
    most_alive = 0

    def __init__(self, trial, looks=3, error=""):
        self.trial, self.looks, self.error, self.interrupted = trial, looks, error, False
        FakeJob.alive += 1
        FakeJob.most_alive = max(FakeJob.most_alive, FakeJob.alive)

    def poll(self):
        self.looks -= 1
        return self.looks <= 0 or self.interrupted

    def progress(self):
        return 0.5, "halfway"

    def interrupt(self):
        self.interrupted = True

    def conclude(self):
        FakeJob.alive -= 1
        return self.error


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(runner, "POLL_S", 0.001)
    FakeJob.alive = FakeJob.most_alive = 0


def silent() -> Console:
    return Console(file=StringIO())


def test_trials_are_done_in_order_and_no_more_at_once_than_asked() -> None:
    started = []

    def start(trial):
        started.append(trial)
        return FakeJob(trial)

    assert work_through(TRIALS, start, jobs=2, console=silent()) == {}
    assert started == TRIALS and FakeJob.most_alive == 2


def test_a_trial_that_fails_does_not_keep_the_others() -> None:
    console = silent()
    failures = work_through(
        TRIALS,
        lambda trial: FakeJob(trial, error="broke" if trial.name == "vip-b8-s0" else ""),
        jobs=1,
        console=console,
    )
    assert failures == {"vip-b8-s0": "broke"}
    assert (
        "vip-b8-s0: failed" in console.file.getvalue()
        and "4/4 vip-b8-s1: done" in console.file.getvalue()
    )


@pytest.fixture
def without_nohup() -> Iterator[None]:
    """SIGHUP is not ignored, however the tests were started."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_what_is_at_work_to_save_and_starts_nothing_more(number) -> None:
    jobs = []
    # Another test of this process may have left one of Ray's.
    before = [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGHUP)]

    def start(trial):
        jobs.append(FakeJob(trial, looks=10_000))
        os.kill(os.getpid(), number)
        return jobs[-1]

    with pytest.raises(Interrupted):
        work_through(TRIALS, start, jobs=2, console=silent())
    assert [job.interrupted for job in jobs] == [True]
    assert [signal.getsignal(other) for other in (signal.SIGTERM, signal.SIGHUP)] == before


def test_under_nohup_a_terminal_that_closes_ends_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def start(trial):
            os.kill(os.getpid(), signal.SIGHUP)
            return FakeJob(trial)

        assert work_through(TRIALS, start, jobs=1, console=silent()) == {}
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_leaves_nothing_at_work() -> None:
    jobs = []

    def start(trial):
        if jobs:
            raise OSError("no space left")
        jobs.append(FakeJob(trial, looks=10_000))
        return jobs[-1]

    with pytest.raises(OSError, match="no space"):
        work_through(TRIALS, start, jobs=2, console=silent())
    assert jobs[0].interrupted


def test_runs_that_take_long_to_save_are_named(monkeypatch) -> None:
    monkeypatch.setattr(runner, "PATIENCE_S", 0.01)
    monkeypatch.setattr(FakeJob, "poll", lambda self: False)
    console = silent()

    def start(trial):
        os.kill(os.getpid(), signal.SIGTERM)
        return FakeJob(trial)

    with pytest.raises(Interrupted):
        work_through(TRIALS, start, jobs=1, console=console)
    assert "still saving: uniform-b8-s0" in console.file.getvalue()
