"""What goes along with a run whatever it does: its state, its checkpoints, and where it reports."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, RunConfig
from megatron_trace.report.metrics import MetricsWriter
from megatron_trace.report.progress import RunProgress
from megatron_trace.supervise.guard import Guard
from megatron_trace.supervise.stop import Stop
from megatron_trace.training.checkpoints import Checkpoints, RunState
from megatron_trace.training.trainer import Trainer


def reached_end(settings: RunConfig, state: RunState) -> bool:
    """Whether a run that stands at `state` has taken all its steps, or spent its sampling budget."""
    spent = settings.rollouts is not None and state.rollouts >= settings.rollouts
    return state.step >= settings.steps or spent


POLL_S = 2.0
"""How often the loop looks whether a checkpoint is on disk."""


@dataclass
class Session:
    """One start of the program on rank 0. It is the `Progress` of sampling, and looks after checkpoints meanwhile.

    Attributes:
        state: after the last finished step.
        checkpoints: None where nothing is trained, `checkpoint.every` is 0, or the last one is written.
        stop: asks the run to end.
        evaluated: steps whose evaluation is already written down.
        notes: events for the next row.
    """

    config: Config
    run_dir: Path
    state: RunState
    writer: MetricsWriter
    progress: RunProgress
    stop: Stop
    guard: Guard
    checkpoints: Checkpoints | None
    evaluated: set[int] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    _polled: float = 0.0

    def at_end(self) -> bool:
        """Whether the run has taken all its steps, or spent its sampling budget."""
        return reached_end(self.config.run, self.state)

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin phase `name`, of `total` units where that is known."""
        self.progress.phase(name, total)
        self._poll()

    def advance(self, n: int = 1) -> None:
        """`n` more units of the phase are done."""
        self.progress.advance(n)
        self._poll()

    def _poll(self) -> None:
        now = time.monotonic()
        if self.checkpoints is not None and now - self._polled > POLL_S:
            self._polled = now
            self.checkpoints.poll()
            self._tell()

    def note(self, event: str) -> None:
        """Show what happened, and put it into the next row."""
        self.notes.append(event)
        self.progress.message(event)

    def _tell(self) -> None:
        assert self.checkpoints is not None
        for event in self.checkpoints.take_events():
            self.note(event)
        self.guard.hint(self.checkpoints.hint())

    def keep(self, state: RunState, trainer: Trainer) -> None:
        """A step is finished: this is where the run stands now. Saves it where that is due."""
        self.state = state
        if self.checkpoints is not None:
            self.checkpoints.poll()
            if self.checkpoints.due(state.step, last=self.at_end()):
                self.checkpoints.begin(state)
            self._tell()
        every = self.config.checkpoint.export_hf_every
        if every and state.step % every == 0:
            trainer.save(self.run_dir / "hf" / f"step_{state.step:05d}")

    def write(self, row: Mapping[str, Any]) -> None:
        """Write down a step's or an evaluation's row and show it."""
        row = dict(row)
        if "evaluation" not in row:
            for event in row.get("events", []):
                self.progress.message(event)
            row["events"], self.notes = [*self.notes, *row.get("events", [])], []
        self.writer.write(row)
        self.progress.step_done(row)

    def finish(self) -> None:
        """Bring the last finished step to disk. Nothing where that was done before."""
        if self.checkpoints is None:
            return
        self.progress.phase("checkpoint")
        self.checkpoints.finish(self.state)
        self._tell()
        self.checkpoints = None
