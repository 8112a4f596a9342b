from pathlib import Path

import pytest

from megatron_trace.check import SettingError
from megatron_trace.compare import setup as setups
from megatron_trace.compare.grid import Cell, Variant, strategy_variant
from megatron_trace.compare.record import Record, write_record
from megatron_trace.compare.setup import Setup, cell_config, check_cells, result_path, settings_of

CONFIG = str(Path(__file__).parents[3] / "configs" / "geo_hop_cpu.yaml")


@pytest.fixture
def setup(tmp_path) -> Setup:
    return Setup(CONFIG, tmp_path, tmp_path / "results", world={})


def test_every_cell_may_sample_the_same_and_is_evaluated_as_often(setup):
    configs = [cell_config(Cell(strategy_variant("uniform"), budget, 0), setup) for budget in (64, 128, 256)]
    assert [config.run.rollouts for config in configs] == [3840] * 3
    assert [config.allocation.budget for config in configs] == [64, 128, 256]
    assert [config.evaluation.every * config.allocation.budget for config in configs] == [15 * 128] * 2 + [
        8 * 256
    ]


def test_a_budget_in_tokens_is_spent_in_as_many_steps_as_it_takes(tmp_path):
    setup = Setup(CONFIG, tmp_path, tmp_path, overrides=("allocation.unit=tokens",), total=30_000)
    run = cell_config(Cell(strategy_variant("uniform"), 3000, 0), setup).run
    assert (run.rollouts, run.steps) == (None, 10)


def test_a_variants_settings_stand_above_those_for_all(tmp_path):
    setup = Setup(CONFIG, tmp_path, tmp_path, overrides=("allocation.group=4", "evaluation.tasks=7"))
    config = cell_config(Cell(Variant("a", ("allocation.group=16",)), 64, 3), setup)
    assert (config.allocation.group, config.evaluation.tasks, config.run.seed) == (16, 7, 3)
    assert not config.run.save_trees


def test_a_total_that_is_no_whole_number_of_budgets_is_refused(tmp_path):
    setup = Setup(CONFIG, tmp_path, tmp_path, total=100)
    with pytest.raises(SettingError, match="--total = 100: is no multiple"):
        cell_config(Cell(strategy_variant("uniform"), 64, 0), setup)


@pytest.mark.parametrize(
    ("variant", "budget", "message"),
    [
        (strategy_variant("unifrom"), 64, "unifrom-b64-s0: allocation.strategy = 'unifrom': must be one of"),
        (strategy_variant("uniform"), 60, "uniform-b60-s0: allocation.budget = 60: must be a multiple"),
        (Variant("a", ("allocation.bugdet=3",)), 64, "did you mean allocation.budget"),
    ],
)
def test_a_cell_that_cannot_work_is_named_before_anything_starts(setup, variant, budget, message):
    with pytest.raises(SettingError, match=message):
        check_cells([Cell(variant, budget, 0)], setup)


def test_a_result_of_other_settings_is_not_taken_for_this_one(setup):
    cell = Cell(strategy_variant("uniform"), 64, 0)
    record = Record("simulated", "uniform", 64, 0, settings=settings_of(cell_config(cell, setup), setup))
    write_record(setup.results, record)
    assert result_path(cell, setup).exists()
    check_cells([cell], setup)
    other = Setup(CONFIG, setup.out, setup.results, overrides=("learning.learning_rate=3e-4",), world={})
    with pytest.raises(SettingError, match=r"another learning.learning_rate \(0.0001 there, 0.0003 now\)"):
        check_cells([cell], other)


def test_where_a_run_lies_makes_no_difference(setup):
    settings = settings_of(cell_config(Cell(strategy_variant("uniform"), 64, 0), setup), setup)
    assert settings["allocation.strategy"] == "uniform"
    assert not [name for name in settings if name.startswith(("run.name", "run.directory", "checkpoint."))]
    assert setups.result_path(Cell(strategy_variant("vip"), 8, 1), setup).name == "vip-b8-s1.json"
