"""Training rows: trees laid out as token sequences in which every shared token is learned from once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_trace.learning.advantages import tree_advantages
from megatron_trace.tree import RolloutTree, leaf_statistics


@dataclass
class Row:
    """One root-to-leaf path of a tree. Every array has shape [length]; entry t speaks of token t.

    Attributes:
        tokens: token ids, int64.
        learn: True where token t was sampled and no earlier row of the tree learns from it.
        advantage: advantage of token t's turn; 0 where not `learn`.
        sampler_logprob: log-probability of token t under the policy that sampled it; 0 where not `learn`.
        predict: True where the history ending with token t is an anchor that no earlier row predicts.
        target: the predictor's target at t, the backed-up success rate; 0 where not `predict`.
    """

    tokens: NDArray[np.int64]
    learn: NDArray[np.bool_]
    advantage: NDArray[np.float32]
    sampler_logprob: NDArray[np.float32]
    predict: NDArray[np.bool_]
    target: NDArray[np.float32]


def rows_from_tree(tree: RolloutTree) -> list[Row]:
    """One row per leaf of `tree`; together they learn from each sampled token and each anchor once."""
    advantages = tree_advantages(tree)
    _, success, _ = leaf_statistics(tree)
    seen: set[int] = set()
    rows = []
    for leaf in tree.leaves():
        columns: dict[str, list] = {name: [] for name in Row.__annotations__}
        for index in tree.path(leaf):
            turn, fresh = tree.turns[index], index not in seen
            seen.add(index)
            actions, length = len(turn.action_ids), len(turn.action_ids) + len(turn.observation_ids)
            padding = [0.0] * (length - actions)
            anchor = fresh and not turn.terminal
            columns["tokens"] += turn.action_ids + turn.observation_ids
            columns["learn"] += [fresh] * actions + [False] * len(padding)
            columns["advantage"] += [advantages[index] if fresh else 0.0] * actions + padding
            columns["sampler_logprob"] += (turn.logprobs if fresh else [0.0] * actions) + padding
            columns["predict"] += [False] * (length - 1) + [anchor]
            columns["target"] += [0.0] * (length - 1) + [success[index] if anchor else 0.0]
        rows.append(
            Row(
                tokens=np.array(columns["tokens"], dtype=np.int64),
                learn=np.array(columns["learn"], dtype=np.bool_),
                advantage=np.array(columns["advantage"], dtype=np.float32),
                sampler_logprob=np.array(columns["sampler_logprob"], dtype=np.float32),
                predict=np.array(columns["predict"], dtype=np.bool_),
                target=np.array(columns["target"], dtype=np.float32),
            )
        )
    return rows


def rows_from_trees(trees: Sequence[RolloutTree]) -> list[Row]:
    """All rows of all trees, in order."""
    return [row for tree in trees for row in rows_from_tree(tree)]
