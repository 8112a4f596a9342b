"""A trial in the simulator: training as a run would go, and measurements with the policy held
still.
"""

import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from megatron_trace.compare.collect import host, versions
from megatron_trace.compare.grid import Trial
from megatron_trace.compare.record import Columns, Record
from megatron_trace.compare.recorded_settings import recorded_settings
from megatron_trace.compare.sweep import Sweep, trial_config
from megatron_trace.config import SettingError
from megatron_trace.simulate import Simulation, WorldConfig, make_world, measure, train
from megatron_trace.simulate.config import check_world


def record_of_simulation(trial: Trial, sweep: Sweep, say: Callable[[str], None]) -> Record:
    """Train in the world of the trial's seed, and measure its start policy; `say` is called with
    each phase.

    Raises:
        SettingError: the world or the strategy cannot work with its settings.
    """
    config, world = trial_config(trial, sweep), make_world(world_config(trial, sweep))
    rows: list[dict[str, float]] = []
    # The simulated training counts rollouts; with a budget in tokens only the start policy is
    # measured.
    if config.run.rollouts is not None:
        say("training")
        simulation = Simulation(
            world, config.allocation, config.learning.advantage, seed=trial.seed
        )
        rows = train(simulation, rollouts=config.run.rollouts, learning_rate=sweep.step_size)
    say("measuring")
    numbers = measure(
        config.allocation,
        world,
        advantage=config.learning.advantage,
        repeats=sweep.repeats,
        seed=trial.seed,
    )
    return Record(
        "simulated",
        trial.variant.name,
        trial.budget,
        trial.seed,
        settings=recorded_settings(config, sweep),
        steps=_steps(rows),
        evaluations={
            name: [row[name] for row in rows] for name in ("step", "rollouts", "tokens", "success")
        },
        numbers=dict(numbers),
        versions=versions(),
        host=host(),
    )


def world_config(trial: Trial, sweep: Sweep) -> WorldConfig:
    """The world of a trial: that of its seed, the same for all variants."""
    return WorldConfig(**(sweep.world or {}) | {"seed": trial.seed})


def parse_world(texts: Sequence[str]) -> dict[str, Any]:
    """`name=value` of each knob.

    Raises:
        SettingError: there is no such knob, its value has the wrong type, or no world can be made
            of them.
    """
    knobs: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingError("--world", text, "write it as name=value")
        if name == "seed":
            raise SettingError("world.seed", value, "is that of the trial; see --seeds")
        try:
            merged = OmegaConf.merge(
                OmegaConf.structured(WorldConfig), OmegaConf.from_dotlist([text])
            )
        except OmegaConfBaseException:
            known = ", ".join(
                field.name for field in dataclasses.fields(WorldConfig) if field.name != "seed"
            )
            raise SettingError(
                f"world.{name}", value, f"no such knob, or no such value; knobs: {known}"
            ) from None
        knobs[name] = merged[name]
    check_world(WorldConfig(**knobs))
    return knobs


def _steps(rows: list[dict[str, float]]) -> Columns:
    """What each step took, its effective ratio, and the scores of its predictions."""
    # The simulator's rows hold totals so far; the first row is the start policy, before any step.
    columns: Columns = {
        name: [after[name] - before[name] for before, after in pairwise(rows)]
        for name in ("rollouts", "tokens", "seconds")
    }
    # A step may lack a score: where all outcomes are alike, there is no AUC.
    of_steps = ["effective_ratio"]
    of_steps += sorted({name for row in rows for name in row if name.startswith("predictor_")})
    return columns | {name: [row.get(name) for row in rows[1:]] for name in of_steps}
