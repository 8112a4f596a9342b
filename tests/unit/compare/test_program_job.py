from pathlib import Path

import pytest

from megatron_trace.compare import program_job
from megatron_trace.compare.grid import Trial, strategy_variant
from megatron_trace.compare.program_job import ProgramJob, exit_code, shortfall
from megatron_trace.compare.record import read_records
from megatron_trace.compare.sweep import Sweep
from megatron_trace.config import RunConfig
from megatron_trace.report.metrics_file import MetricsWriter

CONFIG = str(Path(__file__).parents[3] / "configs" / "geo_hop_cpu.yaml")


@pytest.mark.parametrize(
    ("code", "left", "expected"),
    [(1, "75\n", 75), (1, "", 1), (-9, None, -9), (0, "75\n", 0), (1, "x", 1)],
)
def test_the_programs_own_exit_code_counts_where_it_left_one(
    tmp_path, code, left, expected
) -> None:
    file = tmp_path / "trial.exit"
    if left is not None:
        file.write_text(left)
    assert exit_code(code, file) == expected


class Ended:
    """A program that did nothing, and said that all is well."""

    returncode = 0

    def __init__(self, *command, **options):
        pass


@pytest.fixture
def job(tmp_path, monkeypatch) -> ProgramJob:
    (tmp_path / "mine.py").write_text("a strategy")
    trial = Trial(strategy_variant(str(tmp_path / "mine.py")), 64, 0)
    with monkeypatch.context() as patch:
        patch.setattr(program_job.subprocess, "Popen", Ended)
        return ProgramJob(trial, Sweep(CONFIG, tmp_path, tmp_path / "results"))


def test_a_program_that_ended_well_without_its_total_has_failed(job, tmp_path) -> None:
    assert job.conclude().startswith("sampled 0 of 3840 rollouts")
    assert not (tmp_path / "results").exists()


def test_a_record_has_the_strategy_as_it_was_when_the_program_started(job, tmp_path) -> None:
    before = (tmp_path / "logs" / "mine-b64-s0.strategy").read_text()
    (tmp_path / "mine.py").write_text("another strategy")
    with MetricsWriter(tmp_path / "runs" / "mine-b64-s0") as writer:
        writer.write({"step": 1, "bare_rollouts": 3840, "continuations": 0})
    assert job.conclude() == ""
    [record] = read_records(tmp_path / "results")
    assert record.settings["allocation.strategy.sha256"] == before


def rows(*spent):
    steps = [
        {"step": n + 1, "bare_rollouts": s - 1, "continuations": 1} for n, s in enumerate(spent)
    ]
    return [{"step": 0, "evaluation": {"mean": 0.3}}, *steps]


def test_a_run_that_ended_before_its_total_lacks_something() -> None:
    run = RunConfig(rollouts=128, steps=3)
    assert shortfall(run, rows(64, 64)) == "" and shortfall(run, rows(64, 66)) == ""
    assert (
        shortfall(run, rows(32, 32, 32))
        == "sampled 96 of 128 rollouts in 3 steps, of 3 that it may take"
    )
    assert shortfall(run, []).startswith("sampled 0 of 128")


def test_where_tokens_are_counted_a_run_has_all_its_steps() -> None:
    run = RunConfig(steps=2)
    assert (
        shortfall(run, rows(9, 9)) == "" and shortfall(run, rows(9)) == "ended after 1 of 2 steps"
    )
