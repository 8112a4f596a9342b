"""Measure how well a run's predictor knows that a game of Countdown is lost.

    python tools/score_countdown.py runs/countdown_cpu

A solver says of every prefix in the trees that the run has kept whether the target can still be
reached. Where it cannot, the prefix is lost: every policy's success probability is 0, so the
prediction there is the error. Where it can, the prefix is open: the policy's own success
probability is not known. There the outcome counts: the reward of the rollout that added the prefix.

The predictions are those of the run. Each was made before the predictor learned from its step.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from megatron_trace.check.load import load_config
from megatron_trace.config import SettingError
from megatron_trace.envs.builtin.countdown import best_value
from megatron_trace.files.problems import BadData
from megatron_trace.report.exemplars import tree_files
from megatron_trace.tree import RolloutTree, load_trees
from megatron_trace.tree.predictions import Outcomes, auc, scores

PARTS = 3
"""Number of parts in which the steps of the run are shown."""

WIDTH = 140
"""Of the table, in characters; less would break its numbers."""


@dataclass(frozen=True)
class Prefixes:
    """n prefixes of stored trees.

    Attributes:
        step: of the run, [n].
        left: how many numbers are left, [n].
        open: 1 where the target can still be reached, else 0, [n].
        prediction: the recorded success probability, [n].
        success: reward of the rollout that added the prefix, [n].
    """

    step: NDArray[np.int64]
    left: NDArray[np.int64]
    open: NDArray[np.float64]
    prediction: NDArray[np.float64]
    success: NDArray[np.float64]

    def where(self, chosen: NDArray[np.bool_]) -> "Prefixes":
        """Those that a mask [n] chooses."""
        return Prefixes(*(column[chosen] for column in vars(self).values()))


def prefixes_of(trees: Mapping[int, Sequence[RolloutTree]], max_turns: int) -> Prefixes:
    """The prefixes of each step's trees that have a prediction. Roots are none: all can be solved."""
    rows = []
    for step, found in trees.items():
        for tree in found:
            rewards = {tree.turns[leaf].rollout: tree.turns[leaf].reward for leaf in tree.leaves()}
            for turn in tree.turns[1:]:
                if turn.prediction is not None and turn.state is not None:
                    solved = best_value(turn.state, max_turns)
                    left = len(turn.state["numbers"])
                    rows.append((step, left, solved, turn.prediction, rewards[turn.rollout]))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    return Prefixes(columns[0].astype(np.int64), columns[1].astype(np.int64), *columns[2:])


def lost_continuations(trees: Mapping[int, Sequence[RolloutTree]], max_turns: int) -> list[bool]:
    """For every continuation whether it began at a lost prefix."""
    lost = []
    for found in trees.values():
        for tree in found:
            anchors = [one.anchor for one in tree.rollouts if one.stage == "continuation"]
            states = [tree.turns[anchor].state for anchor in anchors]
            lost += [best_value(state, max_turns) == 0.0 for state in states if state is not None]
    return lost


def figures(found: Prefixes) -> dict[str, float]:
    """What the table shows of some prefixes; what cannot be measured is NaN."""
    lost = found.open == 0.0
    told = scores(Outcomes(found.prediction, found.success, np.ones_like(found.open)))
    return {
        "prefixes": len(lost),
        "of them lost": _mean(lost),
        "mean prediction at lost prefixes (0 is right)": _mean(found.prediction[lost]),
        "mean prediction at open prefixes": _mean(found.prediction[~lost]),
        "mean outcome at open prefixes": _mean(found.success[~lost]),
        "AUC: open predicted above lost": _auc(found.prediction, found.open),
        "AUC: won predicted above not won": _auc(found.prediction, found.success),
        "the same, of the solver's 0 or 1": _auc(found.open, found.success),
        "Brier score at lost prefixes": _mean(found.prediction[lost] ** 2),
        "Brier score at all, against outcomes": told.get("brier", np.nan),
        "the same, of their mean": told.get("brier_constant", np.nan),
        "ECE, against outcomes": told.get("ece", np.nan),
    }


def _mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _auc(prediction: NDArray[np.float64], success: NDArray[np.float64]) -> float:
    area = auc(Outcomes(prediction, success, np.ones_like(success)))
    return np.nan if area is None else area


def parts_of(found: Prefixes) -> dict[str, Prefixes]:
    """The prefixes of each part of the steps, then those of the last part by numbers left."""
    parts, last = {}, found
    for steps in np.array_split(np.unique(found.step), PARTS):
        if len(steps):
            last = found.where(np.isin(found.step, steps))
            parts[f"steps {steps[0]} to {steps[-1]}"] = last
    lefts = np.unique(last.left)
    return parts | {f"of these, {left} left": last.where(last.left == left) for left in lefts}


def table(found: Prefixes) -> Table:
    """A column of `figures` for each of `parts_of`."""
    parts = parts_of(found)
    shown = Table("")
    for name in parts:
        shown.add_column(name, justify="right")
    for name, *values in _rows([figures(some) for some in parts.values()]):
        cells = [f"{value:,}" if isinstance(value, int) else f"{value:.3f}" for value in values]
        shown.add_row(name, *cells)
    return shown


def _rows(columns: Sequence[Mapping[str, float]]) -> list[tuple]:
    return [(name, *(one[name] for one in columns)) for name in columns[0]]


def main() -> None:
    """Read the trees, solve the prefixes, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run of countdown that kept its trees")
    run = parser.parse_args().run
    try:
        environment = load_config(str(run / "config.yaml"), []).environment
        trees = {step: load_trees(file) for step, file in tree_files(run).items()}
    except (SettingError, BadData) as error:
        parser.error(str(error))
    if environment.name != "countdown":
        parser.error(f"{run} is a run of {environment.name}; only countdown has a solver")
    found = prefixes_of(trees, environment.max_turns)
    if not len(found.step):
        parser.error(f"{run}/trees holds no prefix with a prediction")
    console = Console()
    Console(width=max(console.width, WIDTH)).print(table(found))
    lost = lost_continuations(trees, environment.max_turns)
    print(f"{sum(lost)} of {len(lost)} continuations began at a lost prefix")


if __name__ == "__main__":
    main()
