"""However a run ends, what it has learned is saved first, and what a full disk costs is told."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from megatron_trace.config import Config
from megatron_trace.data.mixture import WeightedTasks
from megatron_trace.files import space
from megatron_trace.report.metrics_file import MetricsWriter, read_metrics
from megatron_trace.report.progress import RunProgress
from megatron_trace.rollout.sampling import StepCost
from megatron_trace.supervise.health import UnhealthyRun
from megatron_trace.training import loop, records, results
from megatron_trace.training.results import Unsaved, save_results
from megatron_trace.training.run_folder import finished_file
from megatron_trace.training.run_state import RunState
from megatron_trace.training.session import Session


class Ranks:
    """Train ranks whose disk refuses the policy as often as `refuses` says."""

    def __init__(self) -> None:
        self.refuses = 0
        self.saved: list[Path] = []

    def save(self, folder: Path) -> None:
        if self.refuses:
            self.refuses -= 1
            raise OSError("No space left on device")
        self.saved.append(folder)

    def learn(self, trees: object) -> dict[str, float]:
        return {"kl": 0.0}

    def updates(self) -> int:
        return 7

    def push(self, fleet: object, version: int) -> None:
        if version:
            raise RuntimeError("worker 0 died after 0 restarts")


class Checkpoints:
    """Keeps the states that it is asked to save, or cannot save any."""

    def __init__(self, works: bool = True) -> None:
        self.works, self.finished = works, list[RunState]()

    def finish(self, state: RunState) -> bool:
        self.finished.append(state)
        return self.works

    def take_events(self) -> list[str]:
        return []

    def take_duration(self) -> None:
        return None

    def hint(self) -> str:
        return "continue"


class Silent:
    """A guard that is told, and a stop that never comes."""

    def hint(self, text: str) -> None:
        pass

    def check(self) -> None:
        pass


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(results, "PAUSE_S", 0.0)
    monkeypatch.setattr(results, "decoder", lambda folder: str)
    config = Config()
    config.run.directory, config.run.name = str(tmp_path), "r"
    with MetricsWriter(tmp_path / "r") as writer, RunProgress(9) as progress:
        yield Session(
            config=config,
            run_dir=tmp_path / "r",
            state=RunState(step=3),
            writer=writer,
            progress=progress,
            stop=Silent(),  # type: ignore[arg-type]
            guard=Silent(),  # type: ignore[arg-type]
            checkpoints=Checkpoints(),  # type: ignore[arg-type]
        )


def test_a_run_that_took_all_steps_leaves_all_and_says_so(session: Session) -> None:
    ranks = Ranks()
    save_results(session, ranks, None)  # type: ignore[arg-type]
    assert ranks.saved == [session.run_dir / "policy"]
    assert (session.run_dir / "report.html").exists()
    assert finished_file(session.run_dir).read_text() == "3\n"


def test_the_policy_is_tried_again(session: Session) -> None:
    ranks = Ranks()
    ranks.refuses = 2
    save_results(session, ranks, None)  # type: ignore[arg-type]
    assert ranks.saved and len(session.notes) == 2


def test_a_policy_that_cannot_be_saved_is_told_last_and_all_else_is_done(session: Session) -> None:
    ranks = Ranks()
    ranks.refuses = 99
    with pytest.raises(Unsaved, match=r"the policy could not be saved in .*; free space"):
        save_results(session, ranks, None)  # type: ignore[arg-type]
    assert (session.run_dir / "report.html").exists()
    # The same command must not take the run for finished.
    assert not finished_file(session.run_dir).exists()


def test_a_last_step_that_cannot_be_saved_is_told_last(session: Session) -> None:
    session.checkpoints = Checkpoints(works=False)  # type: ignore[assignment]
    with pytest.raises(Unsaved, match="the checkpoint of step 3 could not be saved"):
        save_results(session, Ranks(), None)  # type: ignore[arg-type]


def test_an_error_of_the_report_ends_no_run(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "write_report", lambda *args, **named: 1 / 0)
    save_results(session, Ranks(), None)  # type: ignore[arg-type]
    assert session.notes == [
        "report.html could not be written: ZeroDivisionError: division by zero"
    ]


@pytest.mark.parametrize(
    ("reason", "exported"), [(KeyError("x"), False), (UnhealthyRun("kl is 9"), True)]
)
def test_whatever_ended_the_run_its_last_step_is_saved(
    session: Session, reason: Exception, exported: bool
) -> None:
    checkpoints, ranks = session.checkpoints, Ranks()
    save_results(session, ranks, reason)  # type: ignore[arg-type]
    assert checkpoints.finished == [RunState(step=3)]  # type: ignore[union-attr]
    assert bool(ranks.saved) == exported
    assert not finished_file(session.run_dir).exists()


def test_trees_exports_and_rows_that_cannot_be_written_are_counted_and_end_nothing(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    session.checkpoints = None
    session.config.checkpoint.export_hf_every = 1
    session.config.run.save_trees = True
    monkeypatch.setattr(records, "save_trees", full)
    monkeypatch.setattr(
        records, "sampling_metrics", lambda step, trees, cost: {"step": step, "mixed_share": 0.5}
    )
    row = records.record_sampling(session, 3, [], StepCost())
    ranks = Ranks()
    ranks.refuses = 1
    session.keep(ranks)  # type: ignore[arg-type]
    session.write(row)
    (written,) = read_metrics(session.run_dir)
    assert written["failed_writes"] == 2
    assert written["events"] == [
        "the trees of step 3 could not be written: No space left on device",
        "the export of step 3 could not be written: No space left on device",
    ]


class Sampling:
    """A step's sampling, without any."""

    def __init__(self, *arguments: object) -> None:
        pass

    def sample_roots(self) -> None:
        pass

    def sample_prefixes(self) -> None:
        pass

    def finish(self) -> tuple[list[Any], Any]:
        return [], StepCost()


class Fleet:
    """A fleet, and the allocator of its budget."""

    def candidates(self) -> int:
        return 2

    def state(self) -> dict[str, Any]:
        return {"of": "step 4"}

    def take_events(self) -> list[str]:
        return ["worker 0 died"]


def test_a_step_that_is_learned_counts_even_if_the_fleet_dies_with_it(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sampled(session: Session, step: int, *rest: object) -> Mapping[str, Any]:
        return {"step": step, "sampled_tokens": 1}

    monkeypatch.setattr(loop, "StepSampling", Sampling)
    monkeypatch.setattr(loop, "record_sampling", sampled)
    monkeypatch.setattr(loop, "record_evaluation", lambda *arguments: None)
    monkeypatch.setattr(Ranks, "push", push_first_only())
    session.checkpoints = None
    fleet: Any = Fleet()
    with pytest.raises(RuntimeError, match="worker 0 died"):
        loop.train(session, fleet, fleet, Ranks(), [WeightedTasks([{"id": "a"}, {"id": "b"}])], {})  # type: ignore[arg-type]
    # The weights are those of step 4: a checkpoint of step 3 with them would be wrong.
    assert session.state == RunState(step=4, updates=7, tasks_taken=2, allocation={"of": "step 4"})
    (row,) = read_metrics(session.run_dir)
    assert row["step"] == 4 and row["events"] == ["worker 0 died"]


def push_first_only() -> Any:
    pushed: list[int] = []

    def push(self: Ranks, fleet: object, version: int) -> None:
        pushed.append(version)
        if len(pushed) > 1:
            raise RuntimeError("worker 0 died after 0 restarts")

    return push


def test_a_folder_without_room_is_named_with_what_is_free_and_what_is_needed(
    tmp_path: Path,
) -> None:
    assert space.lacking_room(tmp_path / "not" / "yet", 1) == ""
    line = space.lacking_room(tmp_path / "not" / "yet", 10**18)
    assert str(tmp_path / "not" / "yet") in line
    assert "GB free" in line and "about 1000000000.000 GB are needed" in line


def test_steps_without_a_mixed_tree_are_told_ever_more_seldom(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(step: int, mixed: float) -> list[str]:
        row = {"mixed_share": mixed, "success_rate": 0.0, "malformed_share": 0.4}
        monkeypatch.setattr(records, "sampling_metrics", lambda *_: row)
        session.notes.clear()
        records.record_sampling(session, step, [], StepCost())
        return list(session.notes)

    session.config.run.save_trees = False
    (first,) = record(1, 0.0)
    assert first.startswith("no tree of this step holds both a success and a failure")
    assert "success 0.00, malformed turns 40%" in first
    assert all(not record(step, 0.0) for step in range(2, 10))
    (tenth,) = record(10, 0.0)
    assert "the last 10 steps" in tenth
    assert not record(11, 0.3)
    assert record(12, 0.0)[0].startswith("no tree of this step")
