"""A run's checkpoints: one folder for each, which appears only when it is complete, and what of them is kept.

<run>/checkpoints/step_00010/   Megatron's distributed checkpoint; hf/ (configuration, tokenizer); state.json
                                (where the run stood); manifest.json (checksums)
<run>/checkpoints/latest        name of the newest
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from megatron_trace.config import CheckpointConfig
from megatron_trace.files.atomic import PARTIAL, partial_path, publish, remove, write_text
from megatron_trace.models.folders import HF
from megatron_trace.policy.hf_writer import copy_hf_assets
from megatron_trace.policy.manifest import write_manifest, written_checksums
from megatron_trace.training.trainer import Trainer
from megatron_trace.tree import RolloutTree

STATE, LATEST = "state.json", "latest"
NAME = re.compile(r"step_(\d{5,})")


@dataclass
class RunState:
    """Where a run stands after its last finished step: all that is neither weights nor moments.

    Randomness is split by name from `run.seed`, never drawn from a global generator, so these counters are the
    state of all generators as well.

    Attributes:
        step: steps finished.
        updates: optimizer updates done.
        tasks_taken: tasks taken from the stream; the next step takes the one of this number.
        rollouts: sampled so far.
        allocation: the allocator's memory.
        identity: what must be the same where the run is continued, by dotted name; see `identity.py`.
    """

    step: int = 0
    updates: int = 0
    tasks_taken: int = 0
    rollouts: int = 0
    allocation: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)

    def after(
        self, tasks_taken: int, trees: Sequence[RolloutTree], allocation: dict[str, Any]
    ) -> "RunState":
        """Where the run stands once the next step is sampled; its updates are still those of this step.

        Args:
            tasks_taken: tasks that the step took from the stream.
            trees: that it grew.
            allocation: the allocator's memory after it.
        """
        return replace(
            self,
            step=self.step + 1,
            tasks_taken=self.tasks_taken + tasks_taken,
            rollouts=self.rollouts + sum(len(tree.rollouts) for tree in trees),
            allocation=allocation,
        )


class Checkpoints:
    """Writes a run's checkpoints while it goes on; lives on rank 0."""

    def __init__(
        self,
        folder: Path,
        settings: CheckpointConfig,
        trainer: Trainer,
        model: Path,
        dtype: torch.dtype,
    ) -> None:
        """
        Args:
            folder: of all checkpoints of the run; what a crash left half-written in it is removed.
            trainer: whose state is saved.
            model: HF folder whose configuration and tokenizer travel along.
            dtype: of the weights.
        """
        self._folder, self._settings, self._trainer = folder, settings, trainer
        self._model, self._dtype = model, dtype
        self._writing: RunState | None = None
        self._saved = max(complete(folder), default=-1)
        self.events: list[str] = []
        for leftover in folder.glob(f"*{PARTIAL}"):
            remove(leftover)

    def due(self, step: int, *, last: bool) -> bool:
        """Whether a checkpoint is wanted after `step`, the run's last or not."""
        every = self._settings.every
        return every > 0 and (step % every == 0 or last)

    def begin(self, state: RunState) -> None:
        """Start saving `state` with all weights and moments as they are now; the one before is waited for.

        A disk that is full or read-only costs the checkpoint, not the run: `events` tells.
        """
        self.poll(wait=True)
        partial = partial_path(self._path(state.step))
        try:
            partial.mkdir(parents=True)
            copy_hf_assets(self._model, partial / HF, self._dtype)
            write_state(partial, state)
            self._check_room()
        except OSError as error:
            self._failed(state, str(error))
            return
        self._trainer.begin_checkpoint(partial)
        self._writing = state

    def poll(self, *, wait: bool = False) -> None:
        """Complete the checkpoint that is being written, if the ranks are through with it, or `wait` for them."""
        if self._writing is None or (problem := self._trainer.finish_checkpoint(wait)) is None:
            return
        state, self._writing = self._writing, None
        if problem:
            self._failed(state, problem)
        else:
            self._complete(state)

    def finish(self, state: RunState) -> bool:
        """Make sure that `state` is on disk before the run ends. Returns whether it is."""
        self.poll(wait=True)
        if self._saved != state.step and state.step > 0:
            self.begin(state)
            self.poll(wait=True)
        return self._saved == state.step

    def take_events(self) -> list[str]:
        """What went wrong since the last call."""
        taken, self.events = self.events, []
        return taken

    def hint(self) -> str:
        """How to continue if the run ended now."""
        if self._saved < 0:
            return "there is no checkpoint yet: the same command starts anew"
        return (
            f"to continue, give the same command again: it goes on from {self._path(self._saved)}"
        )

    def _path(self, step: int) -> Path:
        return step_folder(self._folder, step)

    def _check_room(self) -> None:
        needed, free = self._trainer.checkpoint_bytes, shutil.disk_usage(self._folder).free
        if free < needed:
            raise OSError(f"it needs {needed / 1e9:.2f} GB in {self._folder}")

    def _complete(self, state: RunState) -> None:
        """The ranks have written all: the checkpoint gets its manifest and its name."""
        path = self._path(state.step)
        partial = partial_path(path)
        try:
            write_manifest(partial, written_checksums(partial))
            publish(path)
        except OSError as error:
            self._failed(state, str(error))
            return
        # From here on a run can continue from the new checkpoint, whatever happens to the rest.
        self._saved = state.step
        try:
            write_text(self._folder / LATEST, path.name)
            self._remove_superseded()
        except OSError as error:
            self.events.append(
                f"the checkpoint of step {state.step} is saved, but the folder could not be tidied: {error}"
            )

    def _remove_superseded(self) -> None:
        for old in superseded(complete(self._folder), self._settings):
            # Renamed first: a checkpoint that is only half removed must not look complete.
            doomed = partial_path(self._path(old))
            self._path(old).rename(doomed)
            remove(doomed)

    def _failed(self, state: RunState, problem: str) -> None:
        shutil.rmtree(partial_path(self._path(state.step)), ignore_errors=True)
        kept = (
            f"the newest is that of step {self._saved}" if self._saved >= 0 else "there is none yet"
        )
        free = shutil.disk_usage(self._folder.parent).free / 1e9
        self.events.append(
            f"the checkpoint of step {state.step} could not be saved ({kept}, {free:.2f} GB are free): {problem}"
        )


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies among all of the run's."""
    return folder / f"step_{step:05d}"


def complete(folder: Path) -> list[int]:
    """Steps that have a complete checkpoint, in order."""
    names = [NAME.fullmatch(path.name) for path in folder.glob("step_*")]
    return sorted(int(match[1]) for match in names if match)


def superseded(steps: Sequence[int], settings: CheckpointConfig) -> list[int]:
    """Those of the ordered `steps` that the settings do not keep; the newest always stays."""
    every = settings.keep_every
    return [
        step for step in steps[: -max(settings.keep_last, 1)] if not (every and step % every == 0)
    ]


def newest_whole(
    folder: Path, verify: Callable[[Path], str], tell: Callable[[str], None]
) -> tuple[Path, RunState] | None:
    """The newest checkpoint that is what was written; damaged ones are set aside, loudly.

    Args:
        verify: says what is wrong with a checkpoint, or "".
        tell: told of every damaged one.
    """
    for step in reversed(complete(folder)):
        path = step_folder(folder, step)
        problem = verify(path)
        if not problem:
            return path, read_state(path)
        damaged = path.with_suffix(f".damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(damaged)
        tell(
            f"the checkpoint of step {step} is damaged and is not used (kept as {damaged}): {problem}"
        )
    return None


def read_state(checkpoint: Path) -> RunState:
    """The run's state in a checkpoint."""
    return RunState(**json.loads((checkpoint / STATE).read_text(encoding="utf-8")))


def write_state(checkpoint: Path, state: RunState) -> None:
    """Write the run's state into a checkpoint."""
    write_text(checkpoint / STATE, json.dumps(asdict(state), indent=1) + "\n")
