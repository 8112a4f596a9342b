"""What a person sees while a run trains: a live display in a terminal, one plain line per step in a log file."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich import progress as bars
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from megatron_trace.report.history import History, read_history
from megatron_trace.report.words import seconds_text, short


class RunProgress:
    """Shows the step, the phase within it and the latest metrics. A context manager.

    On a terminal the display stays at the bottom and messages scroll above it. Elsewhere there are only plain
    lines without control characters: one for each finished step, and the messages.
    """

    def __init__(
        self,
        steps: int,
        *,
        done: int = 0,
        console: Console | None = None,
        beat: Callable[[str], None] = lambda phase: None,
    ) -> None:
        """Show a run of `steps` steps, numbered from 1, of which `done` were done before it started.

        `beat` is told the phase whenever it goes forward.
        """
        self._console = console or Console()
        self._beat, self._phase = beat, "starting"
        self._steps, self._first, self._done = steps, done, done
        self._metrics: dict[str, Any] = {}
        self._heldout: tuple[float, int] | None = None
        self._began = time.monotonic()
        columns = (
            bars.TextColumn("{task.description:<18}"),
            bars.BarColumn(36, complete_style="cyan", finished_style="green"),
            bars.MofNCompleteColumn(),
        )
        self._bars = bars.Progress(*columns, bars.TextColumn("{task.fields[note]}", style="dim"))
        self._step_bar = self._bars.add_task("step", total=steps, completed=done, note="")
        self._phase_bar = self._bars.add_task("starting", total=None, note="")
        self._phase_began, self._phase_done = self._began, 0
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4
            )

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin phase `name`, of `total` units where that is known (rollouts, tasks, micro-batches)."""
        self._phase = name
        self._beat(name)
        self._phase_began, self._phase_done = time.monotonic(), 0
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
            scores = metrics["evaluation"]
            mean = scores.get("mean", sum(scores.values()) / max(len(scores), 1))
            self._heldout = float(mean), int(metrics["step"])
            if self._live is None:
                self._plain(f"evaluation at step {metrics['step']}: {_scores(scores)}")
            return
        self._metrics = dict(metrics)
        if self._done == self._first:  # starting up says nothing about the steps to come
            self._began, self._first = time.monotonic(), int(metrics["step"])
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

    def message(self, text: str) -> None:
        """A line that stays, such as a worker's restart."""
        if self._live is None:
            self._plain(text)
        else:
            self._console.print(Text(text))

    def _plain(self, text: str) -> None:
        self._console.file.write(" ".join(text.split()) + "\n")
        self._console.file.flush()

    def _time_left(self) -> str:
        done, left = self._done - self._first, self._steps - self._done
        if done <= 0 or left <= 0:
            return ""
        return f"{seconds_text((time.monotonic() - self._began) / done * left)} left"

    def _facts(self) -> list[str]:
        metrics, facts = self._metrics, []
        if "success_rate" in metrics:
            facts.append(f"success {metrics['success_rate']:.3f}")
        if "effective_ratio" in metrics:
            bare = metrics.get("effective_ratio_bare")
            note = "" if bare is None else f" (bare {bare:.3f})"
            facts.append(f"effective ratio {metrics['effective_ratio']:.3f}{note}")
        if self._heldout is not None:
            facts.append(f"held-out {self._heldout[0]:.3f} at step {self._heldout[1]}")
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


def summary_table(run_dir: Path | str) -> Group:
    """What a run came to: held-out success, effective ratio, what was spent, the time and where the files lie."""
    run_dir = Path(run_dir)
    history = read_history(run_dir)
    title = f"{history.name}: {history.progress()}"
    table = Table("", "start", "end", "change", title=title, title_justify="left", highlight=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name in ("mean", *history.evaluation_sets()):
        _change(table, f"held-out success, {name}", history.evaluation(name))
    for key, name in (
        ("effective_ratio", "effective ratio"),
        ("effective_ratio_bare", "of bare rollouts alone"),
    ):
        _change(table, name, history.ends(key) or ())
    table.add_section()
    _spending(table, history)
    table.add_section()
    for phase in history.phases():
        table.add_row(f"time, {phase}", "", seconds_text(history.total(f"time/{phase}")))
    if history.phases():
        table.add_row("time, all phases", "", history.duration())
    files = Text("\n".join(_files(run_dir)), style="dim", no_wrap=True, overflow="ignore")
    return Group(table, files)


def _change(table: Table, name: str, values: list[float] | tuple[float, ...]) -> None:
    if values:
        start, end = values[0], values[-1]
        table.add_row(Text(name), f"{start:.1%}", f"{end:.1%}", f"{100 * (end - start):+.1f}")


def _spending(table: Table, history: History) -> None:
    stages = (
        ("bare rollouts", "bare_rollouts", "bare"),
        ("continuations", "continuations", "continuations"),
    )
    for name, key, stage in stages:
        tokens = short(history.total(f"sampled_tokens_{stage}"))
        table.add_row(name, "", f"{history.total(key):,.0f}", f"{tokens} tokens")


def _files(run_dir: Path) -> list[str]:
    names = ("report.html", "metrics.jsonl", "trees", "tensorboard", "policy")
    return [str(run_dir / name) for name in names if (run_dir / name).exists()]


def _scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
