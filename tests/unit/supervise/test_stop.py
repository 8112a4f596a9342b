"""A signal is noted, and acted on where it is safe."""

import os
import queue
import signal
import time
from collections.abc import Iterator

import pytest

from megatron_trace.supervise.stop import Stop, Stopped

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in NUMBERS]
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests were started by nohup
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS[:3])
def test_a_signal_stops_the_run_at_the_next_safe_point(number: signal.Signals) -> None:
    stop = Stop()
    stop.check()
    os.kill(os.getpid(), number)
    with pytest.raises(Stopped, match=number.name) as caught:
        stop.check()
    assert caught.value.exit_code == 128 + number


def test_the_time_limit_stops_the_run_as_a_signal_would_and_asks_to_be_started_again() -> None:
    stop = Stop(limit_s=0.05)
    stop.check()
    begin = time.monotonic()
    while time.monotonic() < begin + 0.2:
        time.sleep(0.01)
    with pytest.raises(Stopped, match=r"stop\.time_limit_min") as caught:
        stop.check()
    assert caught.value.exit_code == os.EX_TEMPFAIL


def test_the_first_signal_counts() -> None:
    stop = Stop()
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(Stopped, match="SIGTERM"):
        stop.check()


def test_a_signal_ends_a_wait_that_is_under_way() -> None:
    stop, events = Stop(), queue.SimpleQueue[Stopped]()
    stop.wakes(events.put)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    assert events.get(timeout=5).number is signal.SIGTERM


def test_a_signal_that_came_before_the_wait_ends_it() -> None:
    stop, events = Stop(), queue.SimpleQueue[Stopped]()
    os.kill(os.getpid(), signal.SIGINT)
    stop.wakes(events.put)
    assert events.get_nowait().number is signal.SIGINT


def test_nohup_is_respected() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    os.kill(os.getpid(), signal.SIGHUP)
    stop.check()
