"""Try settings of the predictor on the trees that a run has kept.

    python tools/score_predictor.py runs/uniform
    python tools/score_predictor.py runs/uniform learning.predictor.forgetting=0.2

A predictor learns from the run's trees step by step, as in training. Before it learns from a step,
it is scored on the step's anchors. The hidden states are those of the run's start policy in every
step: the policy's own training is left out. So the numbers compare settings with each other, not
with a run's metrics. What config.yaml does not name has today's default.

The ceiling is what a predictor without any error would score. It follows from how much tasks
differ, which the outcomes of their rollouts show. Where a strategy has chosen the tasks, it tells
about these tasks alone; `uniform` draws them as they come.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from fit_predictor import Anchors, anchors
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binom
from transformers import AutoModel

from megatron_trace.check.load import load_config
from megatron_trace.config import AdvantageConfig, PredictorConfig, SettingError, check_bounds
from megatron_trace.learning.read_out import balanced, learned, unknown
from megatron_trace.models.predictor import PredictorHead, load_predictor
from megatron_trace.report.exemplars import tree_files
from megatron_trace.tree import load_trees
from megatron_trace.tree.predictions import Outcomes, auc, outcomes, scores

Floats = NDArray[np.float64]

NEAREST = 0.37
"""Share of the roots, those predicted nearest ½, that a score looks at."""

GRID = np.linspace(0.0025, 0.9975, 200)
"""Success probabilities of which the ceiling's distribution is a mixture."""


@dataclass(frozen=True)
class Step:
    """A step's anchors, and the outcomes of its roots in the same order."""

    anchors: Anchors
    roots: Outcomes


def steps_of(run: Path, model: torch.nn.Module, settings: AdvantageConfig) -> list[Step]:
    """All steps of `run` whose trees were kept, in order."""
    steps = []
    for file in track(tree_files(run).values(), description="hidden states"):
        # A tree whose bare rollouts all failed in their environment has no outcome of its root.
        trees = [tree for tree in load_trees(file) if len(outcomes([tree], roots=True).success)]
        steps.append(Step(anchors(model, trees, settings), outcomes(trees, roots=True)))
    return steps


def learned_from(steps: Sequence[Step], model: Path, settings: PredictorConfig) -> list[Floats]:
    """Predictions of every step before the predictor has learned from it, [its anchors]."""
    head = PredictorHead(steps[0].anchors.hidden.shape[1])
    load_predictor(head, model)
    known, predictions = unknown(head.weight, head.bias), []
    for step in steps:
        found = step.anchors
        logits = found.hidden.double() @ known.mean[:-1] + known.mean[-1]
        predictions.append(torch.sigmoid(logits).numpy())
        count = balanced(found.root, found.rollouts)
        known = learned(known, found.hidden, found.target, count, settings)
    return predictions


def pooled(
    steps: Sequence[Step], predictions: Sequence[Floats], first: int
) -> tuple[Outcomes, Outcomes]:
    """Roots and prefixes of the steps from number `first` on, with the predictions for them."""
    roots, prefixes = [], []
    for step, prediction in list(zip(steps, predictions, strict=True))[first - 1 :]:
        root = step.anchors.root.numpy()
        roots.append([prediction[root], step.roots.success, step.roots.weight])
        success = step.anchors.target.double().numpy()[~root]
        prefixes.append([prediction[~root], success, np.ones_like(success)])
    return Outcomes(*np.concatenate(roots, axis=1)), Outcomes(*np.concatenate(prefixes, axis=1))


def nearest(prediction: Floats, worth: Floats) -> float:
    """Mean `worth` of the roots nearest ½, as a multiple of that of all roots."""
    chosen = np.argsort(np.abs(prediction - 0.5), kind="stable")[: round(NEAREST * len(worth))]
    return float(worth[chosen].mean() / worth.mean())


def spread(success: Floats, rollouts: Floats) -> Floats:
    """How often each probability of `GRID` occurs among the roots: the maximum likelihood by EM."""
    likelihood = binom.pmf(np.round(success * rollouts)[:, None], rollouts[:, None], GRID)
    share = np.full(len(GRID), 1.0 / len(GRID))
    for _ in range(500):
        posterior = likelihood * share
        share = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
    return share


def ceiling(found: Outcomes) -> dict[str, float]:
    """`auc` and `nearest` of a predictor that knows every root's success probability.

    Nothing if rewards are graded: the spread of the tasks then does not follow from the outcomes.
    """
    successes = found.success * found.weight
    if np.abs(successes - np.round(successes)).max() > 1e-6:
        return {}
    share = spread(found.success, found.weight)
    rollouts = round(float(np.mean(found.weight)))
    mixed = 1.0 - GRID**rollouts - (1.0 - GRID) ** rollouts
    order = np.argsort(np.abs(GRID - 0.5), kind="stable")
    taken = np.clip(NEAREST - np.cumsum(share[order]) + share[order], 0.0, share[order])
    area = auc(Outcomes(GRID, GRID, share))
    best = float(taken @ mixed[order] / NEAREST / (share @ mixed))
    return {"nearest": best} | ({} if area is None else {"auc": area})


def table(roots: Outcomes, prefixes: Outcomes) -> Table:
    """The scores, one row for each kind of anchor."""
    shown = Table(
        "", "Brier score", "of the constant", "AUC", "its ceiling", "nearest ½", "its ceiling"
    )
    mixed = ((roots.success > 0) & (roots.success < 1)).astype(np.float64)
    best, found = ceiling(roots), scores(roots)
    shown.add_row(
        f"{len(mixed)} roots",
        f"{found['brier']:.4f}",
        f"{found['brier_constant']:.4f}",
        f"{found.get('auc', float('nan')):.3f}",
        f"{best.get('auc', float('nan')):.3f}",
        f"{nearest(roots.prediction, mixed):.2f}",
        f"{best.get('nearest', float('nan')):.2f}",
    )
    found = scores(prefixes)
    shown.add_row(
        f"{len(prefixes.success)} prefixes",
        f"{found['brier']:.4f}",
        f"{found['brier_constant']:.4f}",
        f"{found.get('auc', float('nan')):.3f}",
    )
    return shown


def main() -> None:
    """Read the trees, learn and score, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a run that kept its trees")
    parser.add_argument(
        "settings", nargs="*", help="learning.predictor...=value, over the run's own"
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
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    steps = steps_of(args.run, model, config.learning.advantage)
    predictions = learned_from(steps, folder, config.learning.predictor)
    chosen = ", ".join(
        f"{name} {value:g}" for name, value in vars(config.learning.predictor).items()
    )
    Console().print(table(*pooled(steps, predictions, args.first)))
    print(
        f"{chosen}. Nearest ½: how often the {NEAREST:.0%} of the roots that are predicted nearest "
        "½ got mixed, as a multiple of all roots."
    )


if __name__ == "__main__":
    main()
