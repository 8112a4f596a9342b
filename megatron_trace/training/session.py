"""What accompanies a run whatever it does: its state, its checkpoints, and where it reports."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_trace.config import Config, RunConfig
from megatron_trace.report.metrics_file import MetricsWriter
from megatron_trace.report.progress import RunProgress
from megatron_trace.supervise.guard import Guard
from megatron_trace.supervise.stop import Stop
from megatron_trace.training.checkpoints import Checkpoints
from megatron_trace.training.run_state import RunState
from megatron_trace.training.trainer import Trainer

POLL_S = 2.0
"""How often to look whether a checkpoint is on disk."""


def reached_end(settings: RunConfig, state: RunState) -> bool:
    """Whether a run that stands at `state` has taken all steps, or spent its sampling budget."""
    spent = settings.rollouts is not None and state.rollouts >= settings.rollouts
    return state.step >= settings.steps or spent


@dataclass
class Session:
    """One start of the program on rank 0.

    It is the `Progress` of sampling: whenever sampling makes progress, it also looks after the
    checkpoint that is being written.

    Attributes:
        state: after the last finished step.
        checkpoints: None if nothing is trained, `checkpoint.every` is 0, or the last is written.
        stop: asks the run to end.
        evaluated: steps whose evaluation is already written down.
        notes: events for the next row.
        steps_without_contrast: how many of the last steps, in a row, had no mixed tree.
        saved: what `finish` found.
        failed_writes: writes since the last row that failed and that the run does not need.
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
    steps_without_contrast: int = 0
    failed_writes: int = 0
    saved: bool = True
    _polled_at: float = 0.0
    _checkpoint_s: float | None = None

    def at_end(self) -> bool:
        """Whether the run has taken all its steps, or spent its sampling budget."""
        return reached_end(self.config.run, self.state)

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin phase `name`, of `total` units if that is known."""
        self.progress.phase(name, total)
        self._poll()

    def advance(self, n: int = 1) -> None:
        """`n` more units of the phase are done."""
        self.progress.advance(n)
        self._poll()

    def note(self, event: str) -> None:
        """Show what happened, and put it into the next row."""
        self.notes.append(event)
        self.progress.message(event)

    @contextmanager
    def can_do_without(self, what: str) -> Iterator[None]:
        """Write something that the run does not need: an error of the disk is noted and counted."""
        try:
            yield
        except OSError as error:
            self.failed_writes += 1
            self.note(f"{what} could not be written: {error}")

    def keep(self, trainer: Trainer) -> None:
        """Save the step that is finished, if that is due."""
        state = self.state
        if self.checkpoints is not None:
            self.checkpoints.poll()
            if self.checkpoints.due(state.step, last=self.at_end()):
                self.checkpoints.begin(state)
            self._tell(self.checkpoints)
        every = self.config.checkpoint.export_hf_every
        if every and state.step % every == 0:
            with self.can_do_without(f"the export of step {state.step}"):
                trainer.save(self.run_dir / "hf" / f"step_{state.step:05d}")

    def write(self, row: Mapping[str, Any]) -> None:
        """Write down a step's or an evaluation's row and show it."""
        row = dict(row)
        # Notes belong to a step. They wait for its row if an evaluation comes first.
        if "evaluation" not in row:
            for event in row.get("events", []):
                self.progress.message(event)
            row["events"], self.notes = [*self.notes, *row.get("events", [])], []
            if self.failed_writes:
                row["failed_writes"], self.failed_writes = self.failed_writes, 0
            if self._checkpoint_s is not None:
                row["checkpoint_s"], self._checkpoint_s = self._checkpoint_s, None
        with self.can_do_without("metrics.jsonl"):
            self.writer.write(row)
        # Loggers have shown already what is wrong with them.
        self.notes += self.writer.take_events()
        self.progress.step_done(row)

    def finish(self) -> bool:
        """Make sure that the last finished step is on disk. A second call does nothing.

        Returns:
            Whether it is, or need not be.
        """
        if self.checkpoints is None:
            return self.saved
        self.progress.phase("checkpoint")
        self.saved = self.checkpoints.finish(self.state) or not self.state.step
        self._tell(self.checkpoints)
        self.checkpoints = None
        return self.saved

    def _poll(self) -> None:
        # While a checkpoint is written, every look is a call of all train ranks. Progress may come
        # many times a second.
        now = time.monotonic()
        if self.checkpoints is not None and now - self._polled_at > POLL_S:
            self._polled_at = now
            self.checkpoints.poll()
            self._tell(self.checkpoints)

    def _tell(self, checkpoints: Checkpoints) -> None:
        for event in checkpoints.take_events():
            self.note(event)
        self.guard.hint(checkpoints.hint())
        seconds, grace_s = checkpoints.take_duration(), self.config.stop.grace_s
        if seconds is None:
            return
        self._checkpoint_s = seconds
        if seconds > grace_s:
            self.note(
                f"stop.grace_s = {grace_s:g} is shorter than the last checkpoint took "
                f"({seconds:.0f} s): a run that is asked to end would be killed while it saves"
            )
