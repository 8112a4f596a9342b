"""What a person sees while a run trains: a live display in a terminal, one plain line per step in a
log file.
"""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from megatron_trace.report.words import seconds_text


class RunProgress:
    """Shows the step, the phase within it and the latest metrics. A context manager.

    On a terminal the display stays at the bottom and messages scroll above it. Elsewhere there are
    only plain lines without control characters: one for each finished step, and the messages.
    """

    def __init__(
        self,
        steps: int,
        *,
        done: int = 0,
        console: Console | None = None,
        beat: Callable[[str], None] = lambda phase: None,
    ) -> None:
        """Show a run of `steps` steps, numbered from 1, of which `done` were done before it
        started.

        `beat` is called with the phase's name whenever something was done in it.
        """
        self._console = console or Console()
        self._beat = beat
        self._steps = steps
        self._first = done
        self._done = done
        self._metrics: dict[str, Any] = {}
        self._heldout: tuple[float, int] | None = None
        self._began = time.monotonic()
        self._bars = bars.Progress(
            bars.TextColumn("{task.description:<18}"),
            bars.BarColumn(36, complete_style="cyan", finished_style="green"),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[note]}", style="dim"),
        )
        self._step_bar = self._bars.add_task("step", total=steps, completed=done, note="")
        self._phase = "starting"
        self._phase_bar = self._bars.add_task("starting", total=None, note="")
        self._phase_began = self._began
        self._phase_done = 0
        self._live: Live | None = None
        # A log file would get every refresh of the display as a line.
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4
            )

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin phase `name`, of `total` units where that is known (rollouts, tasks,
        micro-batches).
        """
        self._phase = name
        self._beat(name)
        self._phase_began = time.monotonic()
        self._phase_done = 0
        self._bars.remove_task(self._phase_bar)
        self._phase_bar = self._bars.add_task(name, total=total, note="")

    def advance(self, n: int = 1) -> None:
        """`n` more units of the phase are done."""
        self._beat(self._phase)
        self._phase_done += n
        rate = self._phase_done / max(time.monotonic() - self._phase_began, 1e-3)
        self._bars.update(self._phase_bar, advance=n, note=f"{rate:.1f}/s")

    def step_done(self, metrics: Mapping[str, Any]) -> None:
        """A row of `metrics.jsonl` is complete: a step's, or an evaluation's."""
        if "evaluation" in metrics:
            self._evaluation_done(metrics)
            return
        self._metrics = dict(metrics)
        # The first step includes start-up, which says nothing about the steps to come.
        if self._done == self._first:
            self._began = time.monotonic()
            self._first = int(metrics["step"])
        self._done = int(metrics["step"])
        self._bars.update(self._step_bar, completed=self._done, note=self._time_left())
        if self._live is None:
            seconds = sum(value for name, value in metrics.items() if name.startswith("time/"))
            parts = [
                f"step {self._done}/{self._steps}",
                *self._facts(),
                seconds_text(seconds),
                self._time_left(),
            ]
            self._plain(" | ".join(filter(None, parts)))

    def _evaluation_done(self, metrics: Mapping[str, Any]) -> None:
        scores = metrics["evaluation"]
        mean = scores.get("mean", sum(scores.values()) / max(len(scores), 1))
        self._heldout = float(mean), int(metrics["step"])
        if self._live is None:
            written = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
            self._plain(f"evaluation at step {metrics['step']}: {written}")

    def message(self, text: str) -> None:
        """A line that stays, such as a worker's restart."""
        if self._live is None:
            self._plain(text)
        else:
            self._console.print(Text(text))

    def _plain(self, text: str) -> None:
        # Past rich, which would wrap the line at the console's width: a log has one line for each
        # step.
        self._console.file.write(" ".join(text.split()) + "\n")
        self._console.file.flush()

    def _time_left(self) -> str:
        done = self._done - self._first
        left = self._steps - self._done
        if done <= 0 or left <= 0:
            return ""
        seconds_a_step = (time.monotonic() - self._began) / done
        return f"{seconds_text(seconds_a_step * left)} left"

    def _facts(self) -> list[str]:
        metrics = self._metrics
        facts = []
        if "success_rate" in metrics:
            facts.append(f"success {metrics['success_rate']:.3f}")
        if "effective_ratio" in metrics:
            bare = metrics.get("effective_ratio_bare")
            note = "" if bare is None else f" (bare {bare:.3f})"
            facts.append(f"effective ratio {metrics['effective_ratio']:.3f}{note}")
        if "mixed_share" in metrics:
            facts.append(f"{metrics['mixed_share']:.0%} of rollouts in mixed trees")
        if self._heldout is not None:
            facts.append(f"held-out {self._heldout[0]:.3f} at step {self._heldout[1]}")
        failed = metrics.get("failed_tasks", 0) + metrics.get("failed_rollouts", 0)
        if failed:
            facts.append(f"{failed} failed")
        if "rollouts_per_s" in metrics:
            facts.append(f"{metrics['rollouts_per_s']:.1f} rollouts/s")
        return facts

    def _render(self) -> Group:
        return Group(self._bars, Text("   ".join(self._facts()), style="cyan"))

    def __enter__(self) -> "RunProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
