from pathlib import Path

from megatron_trace.compare.grid import Trial, strategy_variant
from megatron_trace.compare.simulated import record_of_simulation, world_config
from megatron_trace.compare.sweep import Sweep

CONFIG = str(Path(__file__).parents[3] / "configs" / "geo_hop_cpu.yaml")
WORLD = {"tasks": 32, "depth": 2}
TRIAL = Trial(strategy_variant("uniform"), 16, 1)


def test_a_simulated_trial_trains_to_its_total_and_is_measured(tmp_path) -> None:
    said: list[str] = []
    sweep = Sweep(CONFIG, tmp_path, tmp_path, total=48, world=WORLD, repeats=3)
    found = record_of_simulation(TRIAL, sweep, said.append)
    assert found.kind == "simulated" and found.settings["world.depth"] == 2
    assert found.evaluations["rollouts"] == [0, 16, 32, 48]
    assert found.steps["rollouts"] == [16, 16, 16] and len(found.steps["effective_ratio"]) == 3
    assert {"gradient_snr", "mixed_by_plan", "tokens"} <= found.numbers.keys()
    assert said == ["training", "measuring"]


def test_a_budget_in_tokens_is_measured_with_the_policy_held_still(tmp_path) -> None:
    tokens = ("allocation.unit=tokens", "allocation.expected_tokens=20")
    sweep = Sweep(CONFIG, tmp_path, tmp_path, overrides=tokens, total=1000, world=WORLD, repeats=3)
    found = record_of_simulation(
        Trial(strategy_variant("uniform"), 500, 1), sweep, lambda text: None
    )
    assert found.evaluations["success"] == [] and found.numbers["gradient_snr"] is not None


def test_variants_of_a_seed_meet_in_the_same_world(tmp_path) -> None:
    sweep = Sweep(CONFIG, tmp_path, tmp_path, world=WORLD)
    other = Trial(strategy_variant("trace"), 16, 1)
    assert world_config(TRIAL, sweep) == world_config(other, sweep)
    assert world_config(TRIAL, sweep) != world_config(Trial(TRIAL.variant, 16, 2), sweep)
