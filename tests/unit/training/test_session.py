"""What a session tells of its checkpoints."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megatron_trace.config import Config
from megatron_trace.training.run_state import RunState
from megatron_trace.training.session import Session


class Collector:
    """Takes the place of writer, progress and guard, and keeps the rows and messages."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: []

    def write(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.mark.parametrize(("seconds", "warned"), [(24.0, False), (26.0, True)])
def test_a_checkpoint_that_takes_longer_than_the_time_to_end_is_told(
    seconds: float, warned: bool
) -> None:
    durations = iter([None, seconds, None])
    checkpoints = SimpleNamespace(
        poll=lambda: None,
        due=lambda step, last: False,
        take_events=list,
        hint=str,
        take_duration=lambda: next(durations),
    )
    seen: Any = Collector()
    session = Session(
        config=Config(),
        run_dir=Path(),
        state=RunState(),
        writer=seen,
        progress=seen,
        stop=seen,
        guard=seen,
        checkpoints=checkpoints,  # type: ignore[arg-type]
    )
    for step in (1, 2, 3):
        session._tell(checkpoints)  # type: ignore[arg-type]
        session.write({"step": step})
    assert [row.get("checkpoint_s") for row in seen.rows] == [None, seconds, None]
    told = [event for row in seen.rows for event in row["events"]]
    assert len(told) == warned
    assert all(
        "stop.grace_s = 25 is shorter than the last checkpoint took (26 s)" in e for e in told
    )
