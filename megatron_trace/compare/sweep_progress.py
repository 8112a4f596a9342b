"""What a person sees while a grid is worked through."""

import time
from collections.abc import Sequence

from rich import progress as bars
from rich.console import Console
from rich.text import Text

from megatron_trace.compare.jobs import Job
from megatron_trace.report.words import seconds_text


class SweepProgress:
    """Bars of the grid and of the trials at work; without a terminal, a line for each trial that
    ends.
    """

    def __init__(self, total: int, console: Console) -> None:
        self._console = console
        self._total = total
        self._ended = 0
        self._start_times: dict[str, float] = {}
        self._rows: dict[str, bars.TaskID] = {}
        columns = (
            bars.TextColumn("{task.description:<28}"),
            bars.BarColumn(36, complete_style="cyan", finished_style="green"),
            bars.TextColumn("{task.fields[note]}", style="dim"),
        )
        # Without a terminal bars would fill a log with control characters.
        self._bars = bars.Progress(*columns, console=console, disable=not console.is_terminal)
        self._total_row = self._bars.add_task("all trials", total=total, note="")
        self._first = time.monotonic()

    def begins(self, job: Job) -> None:
        """A trial is at work."""
        name = job.trial.name
        self._start_times[name] = time.monotonic()
        self._rows[name] = self._bars.add_task(name, total=1.0, note="starting")

    def show(self, working: Sequence[Job]) -> None:
        """Update how far they are."""
        done = float(self._ended)
        for job in working:
            share, note = job.progress()
            done += share
            self._bars.update(self._rows[job.trial.name], completed=share, note=note)
        self._bars.update(self._total_row, completed=done, note=self._time_left(done))

    def ends(self, job: Job, error: str) -> None:
        """A trial is done, or has failed."""
        self._ended += 1
        name = job.trial.name
        self._bars.remove_task(self._rows.pop(name))
        took = seconds_text(time.monotonic() - self._start_times.pop(name))
        result = "failed" if error else "done"
        self.line(f"{self._ended}/{self._total} {name}: {result} after {took}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(Text(text))

    def _time_left(self, done: float) -> str:
        count = f"{self._ended}/{self._total}"
        if not 0.0 < done < self._total:
            return count
        left = (time.monotonic() - self._first) / done * (self._total - done)
        return f"{count}, about {seconds_text(left)} left"

    def __enter__(self) -> "SweepProgress":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()
