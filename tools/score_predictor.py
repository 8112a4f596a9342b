"""Try settings of the predictor on the trees that a run has kept.

    python tools/score_predictor.py runs/trace --seeds 3
    python tools/score_predictor.py runs/trace --seeds 3 learning.predictor.average=0 learning.predictor.epochs=8

A predictor learns from the run's trees step by step, as in training. Before it learns from a step,
it is scored on the backed-up success of the step's anchors. The hidden states are those of the
run's start policy in every step: the policy's own training is left out. So the numbers compare
settings with each other, not with a run's metrics. What config.yaml does not name has today's
default.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fit_predictor import anchors
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, distributed
from transformers import AutoModel

from megatron_trace.check.load import load_config
from megatron_trace.config import LearningConfig, SettingError, check_bounds
from megatron_trace.models.predictor import PredictorHead, load_predictor
from megatron_trace.policy.predictor_optimizer import PredictorOptimizer
from megatron_trace.report.exemplars import tree_files
from megatron_trace.tree import load_trees
from megatron_trace.tree.predictions import Outcomes, scores

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """A step's m anchors: hidden states [m, hidden], targets [m], and which are roots [m]."""

    hidden: Tensor
    target: Tensor
    root: NDArray[np.bool_]


def steps_of(run: Path, model: torch.nn.Module, learning: LearningConfig) -> list[Step]:
    """All steps of `run` whose trees were kept, in order."""
    steps = []
    for file in track(tree_files(run).values(), description="hidden states"):
        found = [anchors(model, [tree], learning.advantage) for tree in load_trees(file)]
        root = [np.arange(len(target)) == 0 for _, target in found]
        hidden, target = (torch.cat([one[part] for one in found]) for part in (0, 1))
        steps.append(Step(hidden, target, np.concatenate(root)))
    return steps


def learned(
    steps: Sequence[Step], model: Path, learning: LearningConfig, seed: int
) -> list[Floats]:
    """Predictions of every step before the predictor has learned from it."""
    head = PredictorHead(steps[0].hidden.shape[1], learning.predictor.hidden, seed)
    load_predictor(head, model)
    optimizer, predictions = (
        PredictorOptimizer(head, learning.predictor, distributed.group.WORLD),
        [],
    )
    for number, step in enumerate(steps):
        with torch.no_grad():
            predictions.append(torch.sigmoid(head(step.hidden)).double().numpy())
        optimizer.learn(
            step.hidden.clone(), step.target, np.random.default_rng([seed, number]), 1.0
        )
    return predictions


def means(steps: Sequence[Step], predictions: Sequence[Floats], first: int) -> dict[str, float]:
    """Scores of roots and of prefixes, means over the steps from number `first` on."""
    rows = defaultdict(list)
    for step, prediction in list(zip(steps, predictions, strict=True))[first - 1 :]:
        for kind, chosen in (("roots", step.root), ("prefixes", ~step.root)):
            success = step.target.double().numpy()[chosen]
            for name, value in scores(
                Outcomes(prediction[chosen], success, np.ones(len(success)))
            ).items():
                rows[f"{kind} {name}"].append(value)
    return {name: float(np.mean(values)) for name, values in rows.items()}


def main() -> None:
    """Read the trees, learn and score, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run that kept its trees")
    parser.add_argument(
        "settings", nargs="*", help="learning.predictor...=value, over the run's own"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="orders of the anchors to average over"
    )
    parser.add_argument("--first", type=int, default=6, help="the first of the kept steps to score")
    args = parser.parse_intermixed_args()
    try:
        config = load_config(str(args.run / "config.yaml"), args.settings)
        check_bounds(config)
    except SettingError as error:
        parser.error(str(error))
    if len(tree_files(args.run)) < args.first:
        parser.error(
            f"{args.run} holds trees of {len(tree_files(args.run))} steps; --first is {args.first}"
        )
    folder = Path(config.model.path)
    steps = steps_of(
        args.run, AutoModel.from_pretrained(folder, dtype=torch.float32).eval(), config.learning
    )
    # For a head of this size more threads are slower.
    torch.set_num_threads(1)
    # The predictor's optimizer is collective over a process group; here the group is this process.
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    runs = [
        means(steps, learned(steps, folder, config.learning, seed), args.first)
        for seed in range(args.seeds)
    ]
    distributed.destroy_process_group()
    table = Table("", "Brier score", "of the constant mean", "AUC", box=None)
    for kind in ("roots", "prefixes"):
        values = [
            np.mean([run[f"{kind} {name}"] for run in runs])
            for name in ("brier", "brier_constant", "auc")
        ]
        table.add_row(
            kind,
            *(f"{value:.3f}" if name == 2 else f"{value:.4f}" for name, value in enumerate(values)),
        )
    chosen = {name: value for name, value in vars(config.learning.predictor).items()}
    Console().print(table, "\n" + ", ".join(f"{name} {value:g}" for name, value in chosen.items()))


if __name__ == "__main__":
    main()
