"""The checkpoints of a run on disk: which are there, which to keep, which to continue from."""

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from megatron_trace.config import CheckpointConfig
from megatron_trace.training.run_state import RunState, read_state

NAME = re.compile(r"step_(\d{5,})")


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies in `folder`, which holds all checkpoints of the run."""
    return folder / f"step_{step:05d}"


def complete(folder: Path) -> list[int]:
    """Steps that have a complete checkpoint, in order."""
    steps = []
    for path in folder.glob("step_*"):
        # A partial or damaged one has a longer name.
        if match := NAME.fullmatch(path.name):
            steps.append(int(match[1]))
    return sorted(steps)


def superseded(steps: Sequence[int], settings: CheckpointConfig) -> list[int]:
    """The steps whose checkpoints the settings do not keep; the newest one always stays.

    Args:
        steps: in order.
    """
    every = settings.keep_every
    old = steps[: -max(settings.keep_last, 1)]
    return [step for step in old if not every or step % every]


def newest_whole(
    folder: Path, verify: Callable[[Path], str], tell: Callable[[str], None]
) -> tuple[Path, RunState] | None:
    """The newest checkpoint that is whole and has a usable state. Damaged ones are renamed.

    Args:
        verify: says what is wrong with a checkpoint, or "".
        tell: called with a line for every damaged checkpoint.
    """
    for step in reversed(complete(folder)):
        path = step_folder(folder, step)
        problem = verify(path)
        if not problem:
            try:
                return path, read_state(path)
            except (OSError, ValueError) as error:
                # Written whole, but by a version with other fields.
                problem = f"its state cannot be used: {error}"
        # Kept for whoever wants to save what is in it, under a name that is no checkpoint's.
        damaged = path.with_suffix(f".damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        path.rename(damaged)
        tell(
            f"the checkpoint of step {step} is damaged and is not used (kept as {damaged}): {problem}"
        )
    return None
