"""What a run leaves behind when it ends: its last finished step, the policy, the report."""

import time

from megatron_trace.files.atomic import write_text
from megatron_trace.report.history import decoder
from megatron_trace.report.run_page import write_report
from megatron_trace.supervise.health import UnhealthyRun
from megatron_trace.training.run_folder import finished_file
from megatron_trace.training.session import Session
from megatron_trace.training.trainer import Trainer

ATTEMPTS = 3
"""How often it is tried to save the policy."""

PAUSE_S = 20.0
"""Between two attempts: time to free space, or for a file system to come back."""


class Unsaved(Exception):
    """The run has taken all its steps, but not all that it was run for is on disk."""


def save_results(session: Session, trainer: Trainer | None, reason: Exception | None) -> None:
    """Save what the run has learned, then report it.

    Args:
        trainer: None if nothing was trained.
        reason: what ended the run early; None if it took all its steps.

    Raises:
        Unsaved: something could not be saved, although the run took all its steps. All else is
            done.
    """
    lost = []
    if not session.finish():
        lost.append(f"the checkpoint of step {session.state.step}")
    session.progress.phase("saving")
    # After another end the run is continued, and a run that was asked to end has little time.
    if trainer is not None and (reason is None or isinstance(reason, UnhealthyRun)):
        lost += _save_policy(session, trainer)
    lost += _write_last_rows(session)
    _report(session)
    if reason is not None:
        return
    if lost:
        folder = session.run_dir
        raise Unsaved(
            f"{' and '.join(lost)} could not be saved in {folder}; free space there, then give the "
            "same command again"
        )
    with session.can_do_without("the note that the run is finished"):
        write_text(finished_file(session.run_dir), f"{session.state.step}\n")


def _save_policy(session: Session, trainer: Trainer) -> list[str]:
    """Names the policy if it could not be saved."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            trainer.save(session.run_dir / "policy")
            return []
        except OSError as error:
            session.note(f"the policy could not be saved ({attempt} of {ATTEMPTS} times): {error}")
        if attempt < ATTEMPTS:
            time.sleep(PAUSE_S)
    return ["the policy"]


def _write_last_rows(session: Session) -> list[str]:
    """Names the rows of metrics.jsonl that are lost, if there are any."""
    try:
        session.writer.flush()
    except OSError as error:
        session.note(f"metrics.jsonl could not be written: {error}")
        return ["the last rows of metrics.jsonl"]
    return []


def _report(session: Session) -> None:
    try:
        write_report(session.run_dir, decode=decoder(session.run_dir))
    except Exception as error:
        # It can be made again from what is on disk. What ended the run is more important.
        session.note(f"report.html could not be written: {type(error).__name__}: {error}")
