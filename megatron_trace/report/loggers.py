"""Where a run's numbers go beside `metrics.jsonl`.

A logger that fails or hangs is switched off; training continues.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import Full, Queue
from threading import Thread

from megatron_trace.config import Config
from megatron_trace.config.flatten import flat_settings
from megatron_trace.report.logger_backends import BACKENDS, Logger, RunFacts

MOST_WAITING = 1000
"""Rows that may wait for a slow logger before it is given up."""

CLOSE_S = 10.0
"""How long the end of a run waits for all its loggers together."""


class DetachedLogger:
    """A logger with its own thread: while it waits for a server, nobody waits for it.

    The thread also opens it. When it fails, the caller's thread warns once.
    """

    def __init__(self, name: str, start: Callable[[], Logger]) -> None:
        """Begin to open the logger `name` with `start`."""
        self.name = name
        self._rows: Queue[tuple[int, Mapping[str, float]] | None] = Queue(MOST_WAITING)
        self._problem, self._told = "", False
        self._events: list[str] = []
        self._thread = Thread(target=self._work, args=(start,), name=f"logger {name}", daemon=True)
        self._thread.start()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over the numbers of a step; never waits, never raises."""
        if not self._problem:
            self._hand_over((step, numbers))
        self._tell()

    def take_events(self) -> list[str]:
        """What went wrong since the last call; it was shown already."""
        taken, self._events = self._events, []
        return taken

    def close(self, within_s: float) -> None:
        """Let it finish what it was given, for at most `within_s` seconds."""
        if not self._problem:
            self._hand_over(None)
        self._thread.join(max(within_s, 0.0))
        if self._thread.is_alive() and not self._problem:
            self._problem = f"still busy after {CLOSE_S:g} s at the end of the run; its last rows may be missing"
        self._tell()

    def _hand_over(self, item: tuple[int, Mapping[str, float]] | None) -> None:
        # Never `put`: it would wait for a server that does not answer, and the train step with it.
        try:
            self._rows.put_nowait(item)
        except Full:
            self._problem = f"it has not taken the last {MOST_WAITING} rows"

    def _work(self, start: Callable[[], Logger]) -> None:
        try:
            logger = start()
            while (item := self._rows.get()) is not None and not self._problem:
                logger.write(*item)
            logger.close()
        # Some libraries raise SystemExit, which is no Exception.
        except BaseException as error:
            self._problem = " ".join(f"{type(error).__name__}: {error}".split())

    def _tell(self) -> None:
        if self._problem and not self._told:
            self._told = True
            event = f"{self.name} is off, training continues: {self._problem}"
            self._events.append(event)
            warnings.warn(event, stacklevel=3)


def start_loggers(config: Config, run_dir: Path, *, done: int) -> list[DetachedLogger]:
    """Open every logger of `run.loggers`, each in its own thread.

    Args:
        run_dir: the run's folder, which exists; what names the run elsewhere (the id at W&B, at
            MLflow) is kept there.
        done: steps finished before, when the run is continued.
    """
    facts = RunFacts(config.run.name, run_dir, flat_settings(config), done)
    return [
        DetachedLogger(name, partial(BACKENDS[name], facts))
        for name in dict.fromkeys(config.run.loggers)
    ]


def close_all(loggers: Sequence[DetachedLogger]) -> None:
    """Close them all within `CLOSE_S` seconds."""
    end = time.monotonic() + CLOSE_S
    for logger in loggers:
        logger.close(end - time.monotonic())
