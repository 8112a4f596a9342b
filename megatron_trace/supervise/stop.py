"""Ctrl-C and SIGTERM end the loop at its next safe point. The guard limits how long that takes."""

import os
import signal
from collections.abc import Callable
from types import FrameType


class Stopped(Exception):
    """The run was asked to end."""

    def __init__(self, number: signal.Signals) -> None:
        """`number` is the signal that came; SIGALRM stands for the time limit."""
        timed_out = number is signal.SIGALRM
        by = "stop.time_limit_min" if timed_out else number.name
        super().__init__(f"stopped by {by}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """128 + signal as in a shell; at the time limit 75 (EX_TEMPFAIL: try again)."""
        return os.EX_TEMPFAIL if self.number is signal.SIGALRM else 128 + self.number


class Stop:
    """Keeps the first signal that asks the run to end.

    Every train rank has one, but only rank 0 looks at it. The other ranks do what rank 0 calls, so
    there the signal must have no effect.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        """Listen to SIGINT, SIGTERM and SIGHUP, unless nohup ignores SIGHUP. In the main thread.

        Args:
            limit_s: seconds after which the run is asked to end in any case.
        """
        self._asked: Stopped | None = None
        self._wake: Callable[[Stopped], None] = lambda stopped: None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if limit_s is not None:
            # A timer of 0 s would be off: a limit that has passed already must still stop the run.
            signal.setitimer(signal.ITIMER_REAL, max(limit_s, 0.01))

    def check(self) -> None:
        """Called at a safe point, where everything up to here is complete.

        Raises:
            Stopped: the run was asked to end.
        """
        if self._asked is not None:
            raise self._asked

    def wakes(self, wake: Callable[[Stopped], None]) -> None:
        """Call `wake` from the signal handler, to end a long wait; now if a signal has come."""
        self._wake = wake
        if self._asked is not None:
            wake(self._asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = Stopped(signal.Signals(number))
            self._wake(self._asked)
