"""Training rows: trees as token sequences, in which a shared token is learned from once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_trace.config import AdvantageConfig, Backup
from megatron_trace.learning.estimator import Estimator, make_estimator
from megatron_trace.learning.groups import EPSILON
from megatron_trace.learning.overlong import shape_rewards
from megatron_trace.tree import ROOT, RolloutTree, Turn, as_sampled, by_histories, leaf_statistics
from megatron_trace.tree.backup import sampled_statistics

COLUMNS: dict[str, type[np.generic]] = {
    "tokens": np.int64,
    "learn": np.bool_,
    "advantage": np.float32,
    "sampler_logprob": np.float32,
    "predict": np.bool_,
    "target": np.float32,
    "turn": np.int64,
}


@dataclass
class Row:
    """One root-to-leaf path of a tree. Every array has shape [length]; entry t belongs to token t.

    Attributes:
        tokens: token ids, int64.
        learn: True where token t was sampled and no earlier row of the tree learns from it. These
            are the tokens that the row's own rollout sampled.
        advantage: advantage of token t's turn; 0 where not `learn`.
        sampler_logprob: log-probability of token t under the policy that sampled it; 0 where not
            `learn`.
        predict: True where the history ending with token t is an anchor that no earlier row
            predicts.
        target: the predictor's target at t, the backed-up success rate; 0 where not `predict`.
        turn: index of token t's turn in its tree.
        tree: number of the row's tree.
        filtered: the tree has no contrast and its tokens have no weight in the loss; they are only
            measured.
    """

    tokens: NDArray[np.int64]
    learn: NDArray[np.bool_]
    advantage: NDArray[np.float32]
    sampler_logprob: NDArray[np.float32]
    predict: NDArray[np.bool_]
    target: NDArray[np.float32]
    turn: NDArray[np.int64]
    tree: int = 0
    filtered: bool = False


def rows_from_tree(
    tree: RolloutTree, settings: AdvantageConfig | None = None, *, longest: int | None = None
) -> list[Row]:
    """One row per leaf of `tree`; together they learn from each sampled token and each anchor once.

    Args:
        settings: how advantages and targets are computed; None: the defaults. With `filter_groups`
            a tree without both a success and a failure teaches only the predictor.
            `overlong_buffer` changes advantages alone.
        longest: rollout.max_history_tokens, where the overlong buffer ends.

    Raises:
        SettingError: there is no estimator `learning.advantage.name`.
        ValueError: there is an overlong buffer and `longest` is not given.
    """
    return rows_from_trees([tree], settings, longest=longest)


def rows_from_trees(
    trees: Sequence[RolloutTree],
    settings: AdvantageConfig | None = None,
    *,
    longest: int | None = None,
) -> list[Row]:
    """All rows of all trees, in order; see `rows_from_tree`."""
    settings = settings or AdvantageConfig()
    estimate = make_estimator(settings)
    rows: list[Row] = []
    for number, tree in enumerate(trees):
        rows += _rows(tree, number, settings, estimate, longest)
    return rows


def success_rates(tree: RolloutTree, settings: AdvantageConfig) -> NDArray[np.float64]:
    """The backed-up success of every turn, [turns]: the predictor's targets at anchors."""
    merged, turn_of, _ = by_histories(tree) if settings.merge else as_sampled(tree)
    backup = sampled_statistics if settings.backup is Backup.unbiased else leaf_statistics
    _, success, _ = backup(merged)
    return success[list(turn_of)]


def _rows(
    tree: RolloutTree,
    number: int,
    settings: AdvantageConfig,
    estimate: Estimator,
    longest: int | None,
) -> list[Row]:
    # Overlong shaping lowers rewards for the advantages alone. What the predictor learns, and
    # whether the tree has a contrast, are facts about the task.
    advantages = estimate(_shaped(tree, settings, longest))
    success = success_rates(tree, settings)
    _, _, deviation = leaf_statistics(tree)
    filtered = settings.filter_groups and bool(deviation[ROOT] <= EPSILON)
    if filtered:
        advantages = np.zeros_like(advantages)
    seen: set[int] = set()
    rows = []
    for leaf in tree.leaves():
        columns: dict[str, list] = {name: [] for name in COLUMNS}
        for index in tree.path(leaf):
            fresh = index not in seen
            seen.add(index)
            columns["turn"] += [index] * _length(tree.turns[index])
            _append(columns, tree.turns[index], fresh, advantages[index], success[index])
        arrays: dict[str, Any] = {
            name: np.array(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()
        }
        rows.append(Row(**arrays, tree=number, filtered=filtered))
    return rows


def _length(turn: Turn) -> int:
    return len(turn.action_ids) + len(turn.observation_ids)


def _append(
    columns: dict[str, list], turn: Turn, fresh: bool, advantage: float, success: float
) -> None:
    """Append a turn's tokens to a row.

    Args:
        fresh: no earlier row of the tree has the turn.
    """
    actions, observations = len(turn.action_ids), len(turn.observation_ids)
    no_observation = [0.0] * observations
    no_action = [0.0] * actions
    columns["tokens"] += turn.action_ids + turn.observation_ids
    columns["learn"] += [fresh] * actions + [False] * observations
    columns["advantage"] += ([advantage] * actions if fresh else no_action) + no_observation
    columns["sampler_logprob"] += (turn.logprobs if fresh else no_action) + no_observation
    # The history up to the last token of a turn is an anchor, unless the rollout ends there.
    anchor = fresh and not turn.terminal
    # A turn without tokens ends where the turn before it does, which is an anchor already.
    if tokens := actions + observations:
        columns["predict"] += [False] * (tokens - 1) + [anchor]
        columns["target"] += [0.0] * (tokens - 1) + [success if anchor else 0.0]


def _shaped(tree: RolloutTree, settings: AdvantageConfig, longest: int | None) -> RolloutTree:
    if not settings.overlong_buffer:
        return tree
    if longest is None:
        raise ValueError(
            "learning.advantage.overlong_buffer needs the longest history, rollout.max_history_tokens"
        )
    buffer, penalty = settings.overlong_buffer, settings.overlong_penalty
    return shape_rewards(tree, longest=longest, buffer=buffer, penalty=penalty)
