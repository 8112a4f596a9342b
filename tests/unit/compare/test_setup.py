from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from megatron_trace.compare import setup as setups
from megatron_trace.compare.grid import Cell, Variant, strategy_variant
from megatron_trace.compare.record import Record, write_record
from megatron_trace.compare.setup import Setup, cell_config, check_cells, result_path, settings_of
from megatron_trace.config import SettingError

CONFIG = str(Path(__file__).parents[3] / "configs" / "geo_hop_cpu.yaml")


@pytest.fixture
def setup(tmp_path) -> Setup:
    return Setup(CONFIG, tmp_path, tmp_path / "results", world={})


def test_every_cell_may_sample_the_same_and_is_evaluated_as_often(setup) -> None:
    configs = [
        cell_config(Cell(strategy_variant("uniform"), budget, 0), setup)
        for budget in (64, 128, 256)
    ]
    assert [config.run.rollouts for config in configs] == [3840] * 3
    assert [config.allocation.budget for config in configs] == [64, 128, 256]
    assert [config.evaluation.every * config.allocation.budget for config in configs] == [
        15 * 128
    ] * 2 + [8 * 256]


def test_a_budget_in_tokens_is_spent_in_as_many_steps_as_it_takes(tmp_path) -> None:
    setup = Setup(CONFIG, tmp_path, tmp_path, overrides=("allocation.unit=tokens",), total=30_000)
    run = cell_config(Cell(strategy_variant("uniform"), 3000, 0), setup).run
    assert (run.rollouts, run.steps) == (None, 10)


def test_a_variants_settings_stand_above_those_for_all(tmp_path) -> None:
    setup = Setup(
        CONFIG, tmp_path, tmp_path, overrides=("allocation.group=4", "evaluation.tasks=7")
    )
    config = cell_config(Cell(Variant("a", ("allocation.group=16",)), 64, 3), setup)
    assert (config.allocation.group, config.evaluation.tasks, config.run.seed) == (16, 7, 3)
    assert not config.run.save_trees


def test_a_total_that_is_no_whole_number_of_budgets_is_refused(tmp_path) -> None:
    setup = Setup(CONFIG, tmp_path, tmp_path, total=100)
    with pytest.raises(SettingError, match="--total = 100: is no multiple"):
        cell_config(Cell(strategy_variant("uniform"), 64, 0), setup)


@pytest.mark.parametrize(
    ("variant", "budget", "message"),
    [
        (
            strategy_variant("unifrom"),
            64,
            "unifrom-b64-s0: allocation.strategy = 'unifrom': must be one of",
        ),
        (
            strategy_variant("uniform"),
            60,
            "uniform-b60-s0: allocation.budget = 60: must be a multiple",
        ),
        (Variant("a", ("allocation.bugdet=3",)), 64, "did you mean allocation.budget"),
    ],
)
def test_a_cell_that_cannot_work_is_named_before_anything_starts(
    setup, variant, budget, message
) -> None:
    with pytest.raises(SettingError, match=message):
        check_cells([Cell(variant, budget, 0)], setup)


def test_a_result_of_other_settings_is_not_taken_for_this_one(setup) -> None:
    cell = Cell(strategy_variant("uniform"), 64, 0)
    record = Record(
        "simulated", "uniform", 64, 0, settings=settings_of(cell_config(cell, setup), setup)
    )
    write_record(setup.results, record)
    assert result_path(cell, setup).exists()
    check_cells([cell], setup)
    other = Setup(
        CONFIG, setup.out, setup.results, overrides=("learning.learning_rate=3e-4",), world={}
    )
    with pytest.raises(
        SettingError, match=r"another learning.learning_rate \(0.0001 there, 0.0003 now\)"
    ):
        check_cells([cell], other)


def test_evaluations_that_all_cells_are_given_count_for_the_files_own_budget(tmp_path) -> None:
    setup = Setup(CONFIG, tmp_path, tmp_path, overrides=("evaluation.every=6",))
    every = [
        cell_config(Cell(strategy_variant("uniform"), b, 0), setup).evaluation.every
        for b in (64, 128)
    ]
    assert every == [12, 6]


def test_what_is_in_the_folder_must_be_comparable_with_what_is_planned(setup) -> None:
    cells = [Cell(strategy_variant("trace"), 64, seed) for seed in (0, 1)]
    settings = settings_of(cell_config(cells[0], setup), setup)
    there = Record("simulated", "vip", 64, 0, settings=settings | {"simulate.repeats": 7})
    write_record(setup.results, there)
    with pytest.raises(
        SettingError, match=r"trace-b64-s0 and vip-b64-s0 differ in simulate.repeats \(100 and 7\)"
    ):
        check_cells(cells, setup)
    write_record(setup.results, replace(there, settings=settings))
    check_cells(cells, setup)
    with pytest.raises(SettingError, match="holds simulated results, these are real"):
        check_cells(cells, replace(setup, world=None))


@pytest.fixture
def real(tmp_path, monkeypatch) -> Setup:
    """On the real stack, without looking at model and tasks."""
    monkeypatch.setattr(setups, "_check_config", lambda config, setup: None)
    return Setup(CONFIG, tmp_path, tmp_path / "results")


def begin(cell: Cell, setup: Setup) -> None:
    """Leave what a run that was cut off would."""
    run_dir = setup.runs / cell.name
    (run_dir / "checkpoints").mkdir(parents=True)
    OmegaConf.save(OmegaConf.structured(cell_config(cell, setup)), run_dir / "config.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning.learning_rate=3e-4", r"learning.learning_rate \(0.0001 there, 0.0003 now\)"),
        ("evaluation.tasks=7", r"evaluation.tasks \(120 there, 7 now\)"),
        (
            "data.train=other-*.tar",
            r"data.train \(data/geo_hop/train-\*.tar there, other-\*.tar now\)",
        ),
        (
            "environment.options.corpus=other.tar",
            r"environment.options.corpus \(data/geo_hop/\S+ there, other.tar now\)",
        ),
    ],
)
def test_a_run_of_other_settings_does_not_go_on(real, override, message) -> None:
    cell = Cell(strategy_variant("uniform"), 64, 1)
    begin(cell, real)
    check_cells([replace(cell, seed=0), cell], real)
    with pytest.raises(
        SettingError, match=f"holds a run with another {message}; choose another --out"
    ):
        check_cells([replace(cell, seed=0), cell], replace(real, overrides=(override,)))


def test_a_run_of_unknown_settings_does_not_go_on(real) -> None:
    cell = Cell(strategy_variant("uniform"), 64, 0)
    begin(cell, real)
    (real.runs / cell.name / "config.yaml").write_text("run:\n  nmae: x\n")
    with pytest.raises(SettingError, match="holds a run of unknown settings"):
        check_cells([cell], real)


def test_a_strategy_that_was_edited_is_another(real, tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("first")
    cell = Cell(strategy_variant(str(path)), 64, 0)
    settings = settings_of(cell_config(cell, real), real)
    begin(cell, real)
    started = setups.strategy_file(cell, real)
    started.parent.mkdir()
    started.write_text(settings[setups.STRATEGY_HASH])
    check_cells([cell], real)
    path.write_text("second")
    with pytest.raises(SettingError, match=r"holds a run with another allocation.strategy.sha256"):
        check_cells([cell], real)
    write_record(real.results, Record("real", "mine", 64, 0, settings=settings))
    with pytest.raises(SettingError, match=r"was made with another allocation.strategy.sha256"):
        check_cells([cell], real)


def test_a_knob_of_the_world_that_is_as_usual_is_no_other_world(setup) -> None:
    config = cell_config(Cell(strategy_variant("uniform"), 64, 0), setup)
    usual, other = (replace(setup, world={"spread": spread}) for spread in (0.4, 0.6))
    assert settings_of(config, usual) == settings_of(config, setup)
    assert settings_of(config, other)["world.spread"] == 0.6


def test_where_a_run_lies_makes_no_difference(setup) -> None:
    settings = settings_of(cell_config(Cell(strategy_variant("uniform"), 64, 0), setup), setup)
    assert settings["allocation.strategy"] == "uniform"
    assert not [
        name for name in settings if name.startswith(("run.name", "run.directory", "checkpoint."))
    ]
    assert setups.result_path(Cell(strategy_variant("vip"), 8, 1), setup).name == "vip-b8-s1.json"
