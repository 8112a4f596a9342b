"""Writes a run's checkpoints: one folder each, which appears only when it is complete.

<run>/checkpoints/step_00010/   Megatron's distributed checkpoint; hf/ (configuration, tokenizer);
                                state.json (where the run stood); manifest.json (checksums)
<run>/checkpoints/latest        name of the newest
"""

import time
from contextlib import suppress
from pathlib import Path

import torch

from megatron_trace.config import CheckpointConfig
from megatron_trace.files.atomic import leftovers, partial_path, publish, remove, write_text
from megatron_trace.files.space import lacking_room
from megatron_trace.models.folders import HF
from megatron_trace.policy.hf_writer import copy_hf_assets
from megatron_trace.policy.manifest import write_manifest, written_checksums
from megatron_trace.training.checkpoint_folders import complete, step_folder, superseded
from megatron_trace.training.run_state import RunState, write_state
from megatron_trace.training.trainer import Trainer

LATEST = "latest"


class Checkpoints:
    """Writes a run's checkpoints while training continues; lives on rank 0."""

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
            folder: of all checkpoints of the run; what a killed run left half-written is removed.
            trainer: the train ranks, whose state is saved.
            model: HF folder whose configuration and tokenizer are copied into every checkpoint.
            dtype: of the weights.
        """
        self._folder, self._settings, self._trainer = folder, settings, trainer
        self._model, self._dtype = model, dtype
        self._writing: RunState | None = None
        self._saved_step = max(complete(folder), default=-1)
        self._events: list[str] = []
        self._begun_at = 0.0
        self._duration_s: float | None = None
        for leftover in leftovers(folder):
            try:
                remove(leftover)
            except OSError as error:
                self._events.append(f"{leftover}, left by a killed run, is not removed: {error}")

    def due(self, step: int, *, last: bool) -> bool:
        """Whether the settings ask for a checkpoint after `step`; `last` is the run's last step."""
        every = self._settings.every
        return every > 0 and (step % every == 0 or last)

    def begin(self, state: RunState) -> None:
        """Start saving `state` with all weights and moments as they are now.

        Waits for the checkpoint before. A disk that is full or read-only costs the checkpoint, not
        the run; `take_events` tells. The checkpoint before stays, and the next is tried as usual.
        """
        self.poll(wait=True)
        self._begun_at = time.monotonic()
        partial = partial_path(self._path(state.step))
        try:
            # Looked at first: a disk that fills up during a save is full for all others as well.
            if lack := lacking_room(self._folder, self._trainer.checkpoint_bytes):
                raise OSError(lack)
            remove(partial)
            partial.mkdir(parents=True)
            copy_hf_assets(self._model, partial / HF, self._dtype)
            write_state(partial, state)
        except OSError as error:
            self._failed(state, str(error))
            return
        if problem := self._trainer.begin_checkpoint(partial):
            self._failed(state, problem)
            return
        self._writing = state

    def poll(self, *, wait: bool = False) -> None:
        """Complete the checkpoint that is being written if all ranks have written their parts.

        Args:
            wait: until they have.
        """
        if self._writing is None:
            return
        problem = self._trainer.finish_checkpoint(wait)
        if problem is None:
            return
        state, self._writing = self._writing, None
        if problem:
            self._failed(state, problem)
        else:
            self._complete(state)

    def finish(self, state: RunState) -> bool:
        """Make sure that `state` is on disk before the run ends. Returns whether it is.

        The weights must be those of `state`.
        """
        if not self._trainer.at_rest():
            return False
        self.poll(wait=True)
        # At step 0 there is nothing that a new start would not make again.
        if self._saved_step != state.step and state.step > 0:
            self.begin(state)
            self.poll(wait=True)
        return self._saved_step == state.step

    def take_events(self) -> list[str]:
        """What went wrong since the last call."""
        taken, self._events = self._events, []
        return taken

    def take_duration(self) -> float | None:
        """Seconds that a checkpoint took from its begin until it was found whole; None if none was
        completed since the last call.
        """
        taken, self._duration_s = self._duration_s, None
        return taken

    def hint(self) -> str:
        """How to continue if the run ended now."""
        if self._saved_step < 0:
            return "there is no checkpoint yet: the same command starts from the beginning"
        path = self._path(self._saved_step)
        return f"to continue, give the same command again: it continues from {path}"

    def _path(self, step: int) -> Path:
        return step_folder(self._folder, step)

    def _complete(self, state: RunState) -> None:
        """All ranks have written: the checkpoint gets its manifest and its name."""
        path = self._path(state.step)
        partial = partial_path(path)
        try:
            write_manifest(partial, written_checksums(partial))
            publish(path)
        except OSError as error:
            self._failed(state, str(error))
            return
        # From here on a run can continue from this checkpoint, whatever happens to the rest.
        self._saved_step = state.step
        self._duration_s = time.monotonic() - self._begun_at
        try:
            write_text(self._folder / LATEST, path.name)
            self._remove_superseded()
        except OSError as error:
            self._events.append(
                f"the checkpoint of step {state.step} is saved, but its folder is not tidied: {error}"
            )

    def _remove_superseded(self) -> None:
        for step in superseded(complete(self._folder), self._settings):
            # Renamed first: a checkpoint that is only half removed must not look complete.
            path, doomed = self._path(step), partial_path(self._path(step))
            path.rename(doomed)
            remove(doomed)

    def _failed(self, state: RunState, problem: str) -> None:
        # The next save, or the next start, removes what stays now.
        with suppress(OSError):
            remove(partial_path(self._path(state.step)))
        kept = "there is none yet"
        if self._saved_step >= 0:
            kept = f"the newest is that of step {self._saved_step}"
        self._events.append(
            f"the checkpoint of step {state.step} could not be saved ({kept}): {problem}"
        )
