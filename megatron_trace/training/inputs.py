"""What a run trains on: its tasks, and what they, the start policy and the environment's files hold."""

from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_trace.check.command import Command
from megatron_trace.check.reads import environment_reads
from megatron_trace.check.shards import file_patterns
from megatron_trace.check.tasks import check_tasks, read_tasks, skipped
from megatron_trace.data.task_set import TaskSet
from megatron_trace.data.tasks import Task, Tasks
from megatron_trace.files.digest import content_digest
from megatron_trace.files.shards import shard_paths
from megatron_trace.models.folders import hf_assets_dir, text_files, weight_files
from megatron_trace.policy.hf import read_config
from megatron_trace.training.identity import identity


class RunInputs:
    """What the run trains on. Read when it is first asked for, and only once."""

    def __init__(self, command: Command) -> None:
        """Nothing is read yet."""
        self._config = command.config
        self._replay = command.replay is not None

    @cached_property
    def train(self) -> TaskSet:
        """The training tasks.

        Raises:
            SettingError: they cannot be read.
        """
        return read_tasks(self._config, "data.train", self._config.data.train)

    @cached_property
    def heldout(self) -> dict[str, TaskSet]:
        """The held-out sets by their names.

        Raises:
            SettingError: one cannot be read.
        """
        patterns = self._config.data.heldout
        return {
            name: read_tasks(self._config, f"data.heldout.{name}", pattern)
            for name, pattern in patterns.items()
        }

    @property
    def tasks(self) -> list[Task]:
        """The training tasks; none for a replay, whose trees bring their own."""
        return [] if self._replay else self.train.tasks

    @property
    def evaluation_tasks(self) -> dict[str, Tasks]:
        """The tasks of each held-out set that an evaluation plays."""
        count = self._config.evaluation.tasks
        return {name: one.tasks[:count] for name, one in self.heldout.items()}

    def check(self) -> None:
        """Check that every task can be played; only rank 0 needs to. A replay plays none.

        Raises:
            SettingError: environment or tokenizer cannot be loaded, or a task cannot be played.
        """
        if not self._replay:
            check_tasks(self._config, [self.train, *self.heldout.values()])

    def notes(self) -> list[str]:
        """An event for each set of which something is skipped."""
        if self._replay:
            return []
        events = [skipped(one) for one in (self.train, *self.heldout.values())]
        return [event for event in events if event]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What must be the same where this run is continued."""
        assets = hf_assets_dir(Path(self._config.model.path))
        return identity(self._config, read_config(assets), self._contents())

    def _contents(self) -> dict[str, Any]:
        """What is in the files that settings name, by the settings' names."""
        model = Path(self._config.model.path)
        contents = {
            "--replay": self._replay,
            "data.train": "none" if self._replay else self.train.content,
            "model.weights": _digest(weight_files(model)),
            "model.tokenizer": _digest(text_files(model)),
        }
        if not self._replay:
            for name, pattern in file_patterns(self._config):
                if not name.startswith("data."):
                    contents[name] = _digest([Path(path) for path in shard_paths(pattern)])
            contents |= environment_reads(self._config)
        return contents


def _digest(files: list[Path]) -> str:
    return f"{len(files)} files with SHA-256 {content_digest(files)}"
