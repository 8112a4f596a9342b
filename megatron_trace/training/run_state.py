"""Where a run stands, apart from its weights and moments."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from megatron_trace.files.atomic import write_text
from megatron_trace.tree import RolloutTree

FILE = "state.json"
"""Name within a checkpoint."""


@dataclass
class RunState:
    """Where a run stands after its last finished step.

    Randomness is split by name from `run.seed` and never drawn from a global generator. So these
    counters are the state of all generators as well.

    Attributes:
        step: steps finished.
        updates: optimizer updates done.
        tasks_taken: tasks taken from the stream; the next step begins with the task of this number.
        rollouts: rollouts sampled.
        allocation: the allocator's memory.
        identity: what must be the same to continue the run, by dotted name; see `identity.py`.
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
        """Where the run stands once the next step is sampled; `updates` do not count its own yet.

        Args:
            tasks_taken: tasks that the step took from the stream.
            trees: the trees that it grew.
            allocation: the allocator's memory after it.
        """
        return replace(
            self,
            step=self.step + 1,
            tasks_taken=self.tasks_taken + tasks_taken,
            rollouts=self.rollouts + sum(len(tree.rollouts) for tree in trees),
            allocation=allocation,
        )


def read_state(checkpoint: Path) -> RunState:
    """The run's state in a checkpoint.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged, or of another version of this program.
    """
    stored = json.loads((checkpoint / FILE).read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError(f"{FILE} is not an object")
    names = {one.name for one in fields(RunState)}
    # A default in place of a missing number would continue from a step that never was.
    if wrong := sorted(names ^ stored.keys()):
        raise ValueError(f"{FILE} lacks, or has in addition: {', '.join(wrong)}")
    for name, value in stored.items():
        wanted = type(getattr(RunState(), name))
        if type(value) is not wanted or (wanted is int and value < 0):
            raise ValueError(f"{FILE}: {name} is {value!r}")
    return RunState(**stored)


def write_state(checkpoint: Path, state: RunState) -> None:
    """Write the run's state into a checkpoint."""
    write_text(checkpoint / FILE, json.dumps(asdict(state), indent=1) + "\n")
