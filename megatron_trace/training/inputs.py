"""What a run trains on: its tasks, and what they, the start policy and the environment's files hold."""

from functools import cached_property
from pathlib import Path
from typing import Any

from megatron_trace.check.command import Command
from megatron_trace.check.reads import environment_reads
from megatron_trace.check.shards import file_patterns
from megatron_trace.check.tasks import Share, alone, check_tasks, read_tasks, skipped
from megatron_trace.config.sources import heldout_sources, train_sources
from megatron_trace.data.mixture import WeightedTasks
from megatron_trace.data.task_set import TaskSet
from megatron_trace.data.tasks import Tasks
from megatron_trace.files.digest import content_digest
from megatron_trace.files.shards import shard_paths
from megatron_trace.models.folders import hf_assets_dir, text_files, weight_files
from megatron_trace.policy.hf import read_config
from megatron_trace.training.identity import identity


class RunInputs:
    """What the run trains on. Read when it is first asked for, and only once."""

    def __init__(self, command: Command, share: Share = alone) -> None:
        """Nothing is read yet.

        Args:
            share: checks the tasks.
        """
        self._share = share
        self._config = command.config
        self._replay = command.replay is not None

    @cached_property
    def train(self) -> dict[str, TaskSet]:
        """The training tasks by the names of their sources; "" where `data.train` names files.

        Raises:
            SettingError: they cannot be read.
        """
        sources = train_sources(self._config.data)
        return {source.name: read_tasks(self._config, source) for source in sources}

    @cached_property
    def heldout(self) -> dict[str, TaskSet]:
        """The held-out sets by their names.

        Raises:
            SettingError: one cannot be read.
        """
        sources = heldout_sources(self._config.data)
        return {source.name: read_tasks(self._config, source) for source in sources}

    @property
    def tasks(self) -> list[WeightedTasks]:
        """The training tasks of each source; none for a replay, whose trees bring their own."""
        if self._replay:
            return []
        sources = train_sources(self._config.data)
        return [WeightedTasks(self.train[one.name].tasks, one.weight, one.name) for one in sources]

    @property
    def evaluation_tasks(self) -> dict[str, Tasks]:
        """The tasks of each held-out set that an evaluation plays."""
        count = self._config.evaluation.tasks
        return {name: one.tasks[:count] for name, one in self.heldout.items()}

    def check(self) -> None:
        """Check that every task can be played; a replay plays none.

        Raises:
            SettingError: environment or tokenizer cannot be loaded, or a task cannot be played.
        """
        if not self._replay:
            check_tasks(self._config, self._sets(), self._share)

    def notes(self) -> list[str]:
        """An event for each set of which something is skipped."""
        if self._replay:
            return []
        events = [skipped(one) for one in self._sets()]
        return [event for event in events if event]

    def _sets(self) -> list[TaskSet]:
        return [*self.train.values(), *self.heldout.values()]

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
            **self._tasks_content(),
            "model.weights": _digest(weight_files(model)),
            "model.tokenizer": _digest(text_files(model)),
        }
        if not self._replay:
            for name, pattern in file_patterns(self._config):
                contents[name] = _digest([Path(path) for path in shard_paths(pattern)])
            contents |= environment_reads(self._config)
        return contents

    def _tasks_content(self) -> dict[str, Any]:
        if self._replay:
            return {"data.train": "none"}
        contents: dict[str, Any] = {}
        for source in train_sources(self._config.data):
            contents[source.setting] = self.train[source.name].content
            # One source alone has all weight, so only several have one that says something.
            if source.name:
                contents[f"{source.setting}.weight"] = source.weight
        return contents


def _digest(files: list[Path]) -> str:
    return f"{len(files)} files with SHA-256 {content_digest(files)}"
