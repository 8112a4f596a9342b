"""Which rows go into which optimizer update and which micro-batch, with which weights.

Pure functions on plain data: no model and no process group. Every rank makes the same plan of the
whole step and keeps its own part, so the ranks need not talk to agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from megatron_trace.config import BatchingConfig, LossConfig
from megatron_trace.learning.aggregation import row_weights, teaches_policy
from megatron_trace.learning.packing import Layout, Pass, plan_pass
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import trees_of


@dataclass(frozen=True)
class Update:
    """One optimizer update.

    Attributes:
        weights: of each row's learned tokens in the update's loss, [rows of the step].
        passes: in their order; the last one has the backward pass.
    """

    weights: NDArray[np.float64]
    passes: list[Pass]


@dataclass(frozen=True)
class StepPlan:
    """A training step.

    Attributes:
        scoring: a forward pass over all rows, for log-probabilities before the first update.
        epochs: the updates of each pass over the rows.
    """

    scoring: Pass
    epochs: list[list[Update]]


def plan_step(
    rows: Sequence[Row],
    batching: BatchingConfig,
    loss: LossConfig,
    layout: Layout,
    generator: Generator,
) -> StepPlan:
    """Plan a training step on `rows`.

    Args:
        generator: deals the rows into updates; the same on every rank.

    Raises:
        ValueError: there are no rows, or one alone exceeds learning.batching.micro_batch_tokens.
    """
    if not rows:
        raise ValueError("a training step needs at least one row")
    trees = [row.tree for row in rows]
    parts = [
        split_updates(trees, batching.updates_per_step, generator) for _ in range(batching.epochs)
    ]
    epochs = [[plan_update(rows, selected, loss, layout) for selected in epoch] for epoch in parts]
    scoring = plan_pass(rows, range(len(rows)), layout, backward=False)
    return StepPlan(scoring, epochs)


def split_updates(trees: Sequence[int], updates: int, generator: Generator) -> list[list[int]]:
    """The rows 0…n−1 dealt at random into at most `updates` non-empty parts of whole trees.

    The parts have equally many trees (±1): a tree's rows are computed, and learned from, together.

    Args:
        trees: number of each row's tree, [n].
    """
    rows_of: dict[int, list[int]] = {}
    for row, tree in enumerate(trees):
        rows_of.setdefault(tree, []).append(row)
    groups = list(rows_of.values())
    parts = min(updates, len(groups))
    if parts <= 1:
        return [list(range(len(trees)))]
    order = generator.permutation(len(groups)).tolist()
    edges = [part * len(groups) // parts for part in range(parts + 1)]
    return [
        sorted(row for group in order[first:last] for row in groups[group])
        for first, last in pairwise(edges)
    ]


def plan_update(
    rows: Sequence[Row], selected: Sequence[int], loss: LossConfig, layout: Layout
) -> Update:
    """Plan the optimizer update on the rows `selected`.

    Trees, or rows where they are packed as rows, that give the policy no gradient are computed in a
    pass that is separate and cheaper: they are needed only for the predictor and the metrics.
    """
    weights = row_weights(rows, selected, loss)
    packing = layout.packing
    teaching: list[int] = []
    rest: list[int] = []
    for tree in trees_of(rows, selected, packing.pack, merge=packing.merge):
        indices = [run.row for run in tree]
        teaches = any(teaches_policy(rows[index], loss) for index in indices)
        (teaching if teaches else rest).extend(indices)
    passes = []
    if rest:
        # Forward-only passes come before the gradients. After gradients are reduced, Megatron
        # gathers the updated weights in the next forward pass, which must be that of the next
        # update.
        passes.append(plan_pass(rows, rest, layout, backward=False))
    # With no teaching rows this pass is a dummy: every rank takes part in the collectives, and Adam
    # still takes a step.
    passes.append(plan_pass(rows, teaching, layout, backward=True))
    return Update(weights, passes)
