"""A trial in the simulator, in a process."""

import multiprocessing
import signal
import traceback
from multiprocessing.connection import Connection

from megatron_trace.compare.grid import Trial
from megatron_trace.compare.record import write_record
from megatron_trace.compare.sweep import Sweep

SHARE_BEFORE = {"training": 0.1, "measuring": 0.6}
"""Roughly how much of a trial is done when a phase begins."""


class SimulationJob:
    """A process that simulates one trial and writes its record."""

    def __init__(self, trial: Trial, sweep: Sweep) -> None:
        self.trial = trial
        # Spawn, not fork: a child forked from a process with threads (the progress display, numpy)
        # can hang.
        spawn = multiprocessing.get_context("spawn")
        self._messages, send_end = spawn.Pipe(duplex=False)
        self._process = spawn.Process(target=_simulate, args=(trial, sweep, send_end), daemon=True)
        self._process.start()
        # While this process holds the sending end open, the child's end brings no EOFError.
        send_end.close()
        self._phase = "starting"
        self._error = "ended without a result"

    def poll(self) -> bool:
        """Whether the simulation has ended."""
        try:
            while self._messages.poll():
                kind, text = self._messages.recv()
                if kind == "phase":
                    self._phase = text
                else:
                    self._error = text
        except EOFError:
            self._process.join()
        return not self._process.is_alive()

    def progress(self) -> tuple[float, str]:
        """By the phase that the process has reported."""
        return SHARE_BEFORE.get(self._phase, 0.0), self._phase

    def interrupt(self) -> None:
        """End it at once: it is seconds of work, repeated the next time."""
        self._process.terminate()

    def conclude(self) -> str:
        """The process has written the record itself."""
        self.poll()
        return self._error


def _simulate(trial: Trial, sweep: Sweep, messages: Connection) -> None:
    from megatron_trace.compare.simulated import record_of_simulation

    # Ctrl-C reaches every process of the terminal. The parent ends this one, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        record = record_of_simulation(trial, sweep, lambda phase: messages.send(("phase", phase)))
        write_record(sweep.results, record)
        messages.send(("error", ""))
    except Exception:
        messages.send(("error", traceback.format_exc()))
