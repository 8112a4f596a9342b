from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from megatron_trace.compare import admission
from megatron_trace.compare.admission import check_trials
from megatron_trace.compare.grid import Trial, Variant, strategy_variant
from megatron_trace.compare.record import Record, write_record
from megatron_trace.compare.recorded_settings import STRATEGY_HASH, recorded_settings
from megatron_trace.compare.sweep import Sweep, trial_config
from megatron_trace.config import SettingError

CONFIG = str(Path(__file__).parents[3] / "configs" / "geo_hop_cpu.yaml")


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    return Sweep(CONFIG, tmp_path, tmp_path / "results", world={})


def test_every_trial_may_sample_the_same_and_is_evaluated_as_often(sweep) -> None:
    configs = [
        trial_config(Trial(strategy_variant("uniform"), budget, 0), sweep)
        for budget in (64, 128, 256)
    ]
    assert [config.run.rollouts for config in configs] == [3840] * 3
    assert [config.allocation.budget for config in configs] == [64, 128, 256]
    assert [config.evaluation.every * config.allocation.budget for config in configs] == [
        15 * 128
    ] * 2 + [8 * 256]


def test_a_budget_in_tokens_is_spent_in_as_many_steps_as_it_takes(tmp_path) -> None:
    sweep = Sweep(CONFIG, tmp_path, tmp_path, overrides=("allocation.unit=tokens",), total=30_000)
    run = trial_config(Trial(strategy_variant("uniform"), 3000, 0), sweep).run
    assert (run.rollouts, run.steps) == (None, 10)


def test_a_variants_settings_stand_above_those_for_all(tmp_path) -> None:
    sweep = Sweep(
        CONFIG, tmp_path, tmp_path, overrides=("allocation.group=4", "evaluation.tasks=7")
    )
    config = trial_config(Trial(Variant("a", ("allocation.group=16",)), 64, 3), sweep)
    assert (config.allocation.group, config.evaluation.tasks, config.run.seed) == (16, 7, 3)
    assert not config.run.save_trees


def test_a_total_that_is_no_whole_number_of_budgets_is_refused(tmp_path) -> None:
    sweep = Sweep(CONFIG, tmp_path, tmp_path, total=100)
    with pytest.raises(SettingError, match="--total = 100: is no multiple"):
        trial_config(Trial(strategy_variant("uniform"), 64, 0), sweep)


@pytest.mark.parametrize(
    ("variant", "budget", "message"),
    [
        (
            strategy_variant("unifrom"),
            64,
            "unifrom-b64-s0: allocation.strategy = 'unifrom': no such strategy; did you mean uniform",
        ),
        (
            strategy_variant("uniform"),
            60,
            "uniform-b60-s0: allocation.budget = 60: must be a multiple",
        ),
        (Variant("a", ("allocation.bugdet=3",)), 64, "did you mean allocation.budget"),
    ],
)
def test_a_trial_that_cannot_work_is_named_before_anything_starts(
    sweep, variant, budget, message
) -> None:
    with pytest.raises(SettingError, match=message):
        check_trials([Trial(variant, budget, 0)], sweep)


def test_a_result_of_other_settings_is_not_taken_for_this_one(sweep) -> None:
    trial = Trial(strategy_variant("uniform"), 64, 0)
    record = Record(
        "simulated", "uniform", 64, 0, settings=recorded_settings(trial_config(trial, sweep), sweep)
    )
    write_record(sweep.results, record)
    assert sweep.result_file(trial).exists()
    check_trials([trial], sweep)
    other = Sweep(
        CONFIG,
        sweep.out,
        sweep.results,
        overrides=("learning.optimizer.learning_rate=3e-4",),
        world={},
    )
    with pytest.raises(
        SettingError, match=r"another learning.optimizer.learning_rate \(0.0001 there, 0.0003 now\)"
    ):
        check_trials([trial], other)


def test_evaluations_that_all_trials_are_given_count_for_the_files_own_budget(tmp_path) -> None:
    sweep = Sweep(CONFIG, tmp_path, tmp_path, overrides=("evaluation.every=6",))
    every = [
        trial_config(Trial(strategy_variant("uniform"), b, 0), sweep).evaluation.every
        for b in (64, 128)
    ]
    assert every == [12, 6]


def test_what_is_in_the_folder_must_be_comparable_with_what_is_planned(sweep) -> None:
    trials = [Trial(strategy_variant("trace"), 64, seed) for seed in (0, 1)]
    settings = recorded_settings(trial_config(trials[0], sweep), sweep)
    there = Record("simulated", "vip", 64, 0, settings=settings | {"simulate.repeats": 7})
    write_record(sweep.results, there)
    with pytest.raises(
        SettingError, match=r"trace-b64-s0 and vip-b64-s0 differ in simulate.repeats \(100 and 7\)"
    ):
        check_trials(trials, sweep)
    write_record(sweep.results, replace(there, settings=settings))
    check_trials(trials, sweep)
    with pytest.raises(SettingError, match="holds simulated results, these are real"):
        check_trials(trials, replace(sweep, world=None))


@pytest.fixture
def real(tmp_path, monkeypatch) -> Sweep:
    """On the real stack, without looking at model and tasks."""
    monkeypatch.setattr(admission, "_check_config", lambda config, sweep: None)
    return Sweep(CONFIG, tmp_path, tmp_path / "results")


def begin(trial: Trial, sweep: Sweep) -> None:
    """Leave what a run that was cut off would."""
    run_dir = sweep.run_dir(trial)
    (run_dir / "checkpoints").mkdir(parents=True)
    OmegaConf.save(OmegaConf.structured(trial_config(trial, sweep)), run_dir / "config.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "learning.optimizer.learning_rate=3e-4",
            r"learning.optimizer.learning_rate \(0.0001 there, 0.0003 now\)",
        ),
        ("evaluation.tasks=7", r"evaluation.tasks \(120 there, 7 now\)"),
        (
            "data.train=other-*.tar",
            r"data.train \(data/geo_hop/train-\*.tar there, other-\*.tar now\)",
        ),
        (
            "environment.options.search_qa.corpus=other.tar",
            r"environment.options.search_qa.corpus \(data/geo_hop/\S+ there, other.tar now\)",
        ),
    ],
)
def test_a_run_of_other_settings_does_not_go_on(real, override, message) -> None:
    trial = Trial(strategy_variant("uniform"), 64, 1)
    begin(trial, real)
    check_trials([replace(trial, seed=0), trial], real)
    with pytest.raises(
        SettingError, match=f"holds a run with another {message}; choose another --out"
    ):
        check_trials([replace(trial, seed=0), trial], replace(real, overrides=(override,)))


def test_a_run_of_unknown_settings_does_not_go_on(real) -> None:
    trial = Trial(strategy_variant("uniform"), 64, 0)
    begin(trial, real)
    (real.run_dir(trial) / "config.yaml").write_text("run:\n  nmae: x\n")
    with pytest.raises(SettingError, match="holds a run of unknown settings"):
        check_trials([trial], real)


def test_a_strategy_that_was_edited_is_another(real, tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("first")
    trial = Trial(strategy_variant(str(path)), 64, 0)
    settings = recorded_settings(trial_config(trial, real), real)
    begin(trial, real)
    started = real.log_file(trial, "strategy")
    started.parent.mkdir()
    started.write_text(settings[STRATEGY_HASH])
    check_trials([trial], real)
    path.write_text("second")
    with pytest.raises(SettingError, match=r"holds a run with another allocation.strategy.sha256"):
        check_trials([trial], real)
    write_record(real.results, Record("real", "mine", 64, 0, settings=settings))
    with pytest.raises(SettingError, match=r"was made with another allocation.strategy.sha256"):
        check_trials([trial], real)


def test_a_knob_of_the_world_that_is_as_usual_is_no_other_world(sweep) -> None:
    config = trial_config(Trial(strategy_variant("uniform"), 64, 0), sweep)
    usual, other = (replace(sweep, world={"spread": spread}) for spread in (0.4, 0.6))
    assert recorded_settings(config, usual) == recorded_settings(config, sweep)
    assert recorded_settings(config, other)["world.spread"] == 0.6


def test_where_a_run_lies_makes_no_difference(sweep) -> None:
    settings = recorded_settings(
        trial_config(Trial(strategy_variant("uniform"), 64, 0), sweep), sweep
    )
    assert settings["allocation.strategy"] == "uniform"
    assert not [
        name for name in settings if name.startswith(("run.name", "run.directory", "checkpoint."))
    ]
    assert sweep.result_file(Trial(strategy_variant("vip"), 8, 1)).name == "vip-b8-s1.json"
