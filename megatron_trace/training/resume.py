"""The checkpoint that a run continues from."""

from pathlib import Path

from megatron_trace.config import Config
from megatron_trace.policy.manifest import verify
from megatron_trace.training.checkpoint_folders import complete, newest_whole, step_folder
from megatron_trace.training.identity import OtherRun, check_same
from megatron_trace.training.inputs import RunInputs
from megatron_trace.training.run_folder import finished_file, run_folder
from megatron_trace.training.run_state import FILE, RunState, read_state
from megatron_trace.training.session import reached_end
from megatron_trace.training.trainer import Trainer


def newest_state(config: Config) -> tuple[Path, RunState] | None:
    """The newest checkpoint with its state; only the state's file is verified yet.

    Returns:
        None if there is no checkpoint, or none is wanted, or its state is damaged. In the last case
        `resume` will set the checkpoint aside and say so.
    """
    folder = run_folder(config) / "checkpoints"
    steps = complete(folder)
    if not config.checkpoint.resume or not steps:
        return None
    path = step_folder(folder, steps[-1])
    try:
        verify(path, names=(FILE,))
        return path, read_state(path)
    except (OSError, ValueError):
        return None


def is_finished(config: Config, state: RunState) -> bool:
    """Whether a run that stands at `state` has taken all its steps and left all its results."""
    run_dir = run_folder(config)
    if not reached_end(config.run, state):
        return False
    try:
        # A policy alone may be that of an earlier end, before `run.steps` was raised.
        finished = finished_file(run_dir).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    results = [run_dir / name for name in ("policy", "report.html")]
    return finished == str(state.step) and all(result.exists() for result in results)


def resume(
    config: Config, trainer: Trainer, inputs: RunInputs, notes: list[str]
) -> RunState | None:
    """Load the newest checkpoint that is whole.

    Args:
        notes: gets a line for each checkpoint that is damaged, and one for the checkpoint that is
            loaded.

    Returns:
        Where the run stands; None if there never was a checkpoint, or none is wanted.

    Raises:
        OtherRun: the checkpoint is of another model or configuration, or all are damaged.
    """
    folder = run_folder(config) / "checkpoints"
    if not config.checkpoint.resume:
        return None
    found = newest_whole(folder, trainer.verify_checkpoint, notes.append)
    if found is not None:
        path, state = found
        check_same(path, state.identity, inputs.identity)
        trainer.load_checkpoint(path, state.updates)
        notes.append(f"continued from {path}")
        return state
    # Starting from step 0 would move all that was learned aside. Only the user may decide that.
    if list(folder.glob("*.damaged-*")):
        problems = "\n".join([*notes, f"{folder} holds no checkpoint that is whole"])
        raise OtherRun(
            f"{problems}; set checkpoint.resume=false to move the run aside and start from the beginning"
        )
    return None
