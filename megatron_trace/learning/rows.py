"""Training rows: trees as token sequences, in which a shared token is learned from once."""

from collections.abc import Iterator, Sequence
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

Columns = dict[str, list]
"""The arrays of a row, as lists."""


@dataclass
class Row:
    """One history of a rollout, from its first token on. Entry t of every array is token t's.

    It is a root-to-leaf path of the tree, unless a turn began a new history (`Turn.new_history`).
    Then a rollout has several rows. Every array has shape [length].

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
        rollout: number of its rollout, counted over all trees.
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
    rollout: int
    tree: int = 0
    filtered: bool = False


def rows_from_tree(
    tree: RolloutTree, settings: AdvantageConfig | None = None, *, longest: int | None = None
) -> list[Row]:
    """The rows of `tree`; together they learn from each sampled token and each anchor once.

    There is one for each leaf, and one more for each turn that began a new history.

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
    rollouts = 0
    for number, tree in enumerate(trees):
        rows += _rows(tree, number, rollouts, settings, estimate, longest)
        rollouts += len(tree.rollouts)
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
    first_rollout: int,
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
        rollout = first_rollout + tree.turns[leaf].rollout
        for columns in _histories(tree, leaf, seen, advantages, success):
            arrays: dict[str, Any] = {
                name: np.array(columns[name], dtype=dtype) for name, dtype in COLUMNS.items()
            }
            rows.append(Row(**arrays, rollout=rollout, tree=number, filtered=filtered))
    return rows


def _histories(
    tree: RolloutTree,
    leaf: int,
    seen: set[int],
    advantages: NDArray[np.floating],
    success: NDArray[np.floating],
) -> Iterator[Columns]:
    """The columns of the rows on the way to `leaf`.

    Args:
        seen: turns that earlier rows have; those on the way are added.
    """
    columns: Columns = {name: [] for name in COLUMNS}
    for index in tree.path(leaf):
        turn, fresh = tree.turns[index], index not in seen
        seen.add(index)
        _append_action(columns, turn, index, fresh, advantages[index])
        if turn.new_history is not None:
            # A beginning of which another row has learned already would teach nothing.
            if any(columns["learn"]) or any(columns["predict"]):
                yield columns
            columns = {name: [] for name in COLUMNS}
            _append_given(columns, turn.new_history, index)
        else:
            _append_given(columns, turn.observation_ids, index)
        # The history up to the last token of a turn is an anchor, unless the rollout ends there. A
        # turn without tokens ends where the turn before it does, which is an anchor already.
        if fresh and not turn.terminal and columns["turn"][-1:] == [index]:
            columns["predict"][-1], columns["target"][-1] = True, success[index]
    yield columns


def _append_action(columns: Columns, turn: Turn, index: int, fresh: bool, advantage: float) -> None:
    """Append what was sampled in the turn `index`; learned from if no earlier row has it."""
    count = len(turn.action_ids)
    _append_given(columns, turn.action_ids, index)
    if count and fresh:
        columns["learn"][-count:] = [True] * count
        columns["advantage"][-count:] = [advantage] * count
        columns["sampler_logprob"][-count:] = turn.logprobs


def _append_given(columns: Columns, tokens: Sequence[int], index: int) -> None:
    """Append tokens of the turn `index` from which nothing is learned."""
    columns["tokens"] += tokens
    columns["turn"] += [index] * len(tokens)
    for name in ("learn", "predict"):
        columns[name] += [False] * len(tokens)
    for name in ("advantage", "sampler_logprob", "target"):
        columns[name] += [0.0] * len(tokens)


def _shaped(tree: RolloutTree, settings: AdvantageConfig, longest: int | None) -> RolloutTree:
    if not settings.overlong_buffer:
        return tree
    if longest is None:
        raise ValueError(
            "learning.advantage.overlong_buffer needs the longest history, rollout.max_history_tokens"
        )
    buffer, penalty = settings.overlong_buffer, settings.overlong_penalty
    return shape_rewards(tree, longest=longest, buffer=buffer, penalty=penalty)
