"""Ctrl-C and SIGTERM: the loop ends at its next safe point. The guard sees to it that it does not take too long."""

import os
import signal
from collections.abc import Callable
from types import FrameType


class Stopped(Exception):
    """The run was asked to end."""

    def __init__(self, number: signal.Signals) -> None:
        """`number` is the signal that came."""
        in_time = number is signal.SIGALRM
        super().__init__(
            "stopped by stop.time_limit_min" if in_time else f"stopped by {number.name}"
        )
        self.number = number

    @property
    def exit_code(self) -> int:
        """The shell's code for a process that this signal ended; at the time limit 75 (EX_TEMPFAIL: try again)."""
        return os.EX_TEMPFAIL if self.number is signal.SIGALRM else 128 + self.number


class Stop:
    """Notes the first signal that asks the run to end. One for each train rank; rank 0 looks at it.

    The other ranks only follow what rank 0 calls, so for them the signal must do nothing.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        """Listen to SIGINT, SIGTERM and, where it is not ignored (nohup), SIGHUP. In the main thread.

        Args:
            limit_s: seconds after which the run is asked to end in any case.
        """
        self._asked: Stopped | None = None
        self._wake: Callable[[Stopped], None] = lambda stopped: None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        if limit_s is not None:
            signal.setitimer(signal.ITIMER_REAL, max(limit_s, 0.01))

    def check(self) -> None:
        """A safe point: everything up to here is whole.

        Raises:
            Stopped: the run was asked to end.
        """
        if self._asked is not None:
            raise self._asked

    def wakes(self, wake: Callable[[Stopped], None]) -> None:
        """Call `wake` from the signal handler, to end a wait that would last. At once if a signal has come."""
        self._wake = wake
        if self._asked is not None:
            wake(self._asked)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked is None:
            self._asked = Stopped(signal.Signals(number))
            self._wake(self._asked)
