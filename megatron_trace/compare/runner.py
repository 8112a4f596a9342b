"""Work through the cells of a grid: some at once, each at most once, and none twice that has a result."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from megatron_trace.compare.grid import Cell
from megatron_trace.compare.jobs import Job
from megatron_trace.report.words import seconds_text

POLL_S = 0.5
PATIENCE_S = 60.0
"""What a run may take to save and end after Ctrl-C."""


class Interrupted(Exception):
    """The comparison was asked to end; the same command goes on."""


def work_through(
    cells: Sequence[Cell], start: Callable[[Cell], Job], *, jobs: int, console: Console
) -> dict[str, str]:
    """Do all `cells`, `jobs` at once; one that fails does not keep the others.

    Returns:
        What went wrong, by the name of the cell.

    Raises:
        Interrupted: Ctrl-C, SIGTERM or SIGHUP came.

    However it ends, what is at work is asked to save and gets time to.
    """
    waiting, working = list(cells), list[Job]()
    failures: dict[str, str] = {}
    with _asked_to_end() as asked, Display(len(cells), console) as display:
        try:
            while waiting or working:
                while waiting and len(working) < jobs and not asked:
                    working.append(start(waiting.pop(0)))
                    display.begins(working[-1])
                for job in [job for job in working if job.poll()]:
                    working.remove(job)
                    if error := job.conclude():
                        failures[job.cell.name] = error
                    display.ends(job, error)
                if asked:
                    raise Interrupted
                display.show(working)
                time.sleep(POLL_S)
        finally:
            _end(working, display)
    return failures


def _end(working: Sequence[Job], display: "Display") -> None:
    if not working:
        return
    for job in working:  # before any word: the terminal may be gone
        job.interrupt()
    until = time.monotonic() + PATIENCE_S
    with suppress(OSError):
        display.line("ending: what is at work saves its last finished step")
    while (saving := [job for job in working if not job.poll()]) and time.monotonic() < until:
        time.sleep(POLL_S)
    if saving:
        names = ", ".join(job.cell.name for job in saving)
        with suppress(OSError):
            display.line(
                f"still saving: {names}; wait until they have ended before giving the command again"
            )


@contextmanager
def _asked_to_end() -> Iterator[list[int]]:
    """The signals that came: Ctrl-C, SIGTERM, or SIGHUP where it is not ignored (nohup).

    They interrupt nothing, so that no process is started unnoticed.
    """
    came: list[int] = []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda got, frame: came.append(got)) for number in numbers]
    try:
        yield came
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Display:
    """Bars of the grid and of what is at work; where there is no terminal, a line for each cell."""

    def __init__(self, total: int, console: Console) -> None:
        self._console, self._total, self._done = console, total, 0
        self._began: dict[str, float] = {}
        self._rows: dict[str, bars.TaskID] = {}
        columns = (
            bars.TextColumn("{task.description:<28}"),
            bars.BarColumn(36, complete_style="cyan", finished_style="green"),
            bars.TextColumn("{task.fields[note]}", style="dim"),
        )
        self._bars = bars.Progress(*columns, console=console, disable=not console.is_terminal)
        self._all = self._bars.add_task("all cells", total=total, note="")
        self._first = time.monotonic()

    def begins(self, job: Job) -> None:
        """A cell is at work."""
        self._began[job.cell.name] = time.monotonic()
        self._rows[job.cell.name] = self._bars.add_task(job.cell.name, total=1.0, note="starting")

    def show(self, working: Sequence[Job]) -> None:
        """How far they are."""
        shares = []
        for job in working:
            share, note = job.progress()
            shares.append(share)
            self._bars.update(self._rows[job.cell.name], completed=share, note=note)
        self._bars.update(
            self._all, completed=self._done + sum(shares), note=self._left(sum(shares))
        )

    def ends(self, job: Job, error: str) -> None:
        """A cell is done, or has failed."""
        self._done += 1
        name = job.cell.name
        self._bars.remove_task(self._rows.pop(name))
        seconds = seconds_text(time.monotonic() - self._began.pop(name))
        self.line(
            f"{self._done}/{self._total} {name}: {'failed' if error else 'done'} after {seconds}"
        )

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(text))

    def _left(self, working: float) -> str:
        done = self._done + working
        if not 0.0 < done < self._total:
            return f"{self._done}/{self._total}"
        left = (time.monotonic() - self._first) / done * (self._total - done)
        return f"{self._done}/{self._total}, about {seconds_text(left)} left"

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
