"""Micro-batches hold every learned token and anchor of their rows, at its place in the tree."""

import numpy as np
import pytest
import torch
from hypothesis import given

from megatron_trace.config import Pack
from megatron_trace.learning.batches import Batch, LossInputs, make_batch
from megatron_trace.learning.packing import Packing, lay_out
from megatron_trace.learning.rows import Row, rows_from_tree
from megatron_trace.learning.runs import paths, trees_of
from megatron_trace.tree import RolloutTree
from tests.unit.learning.some_rows import row_of, token_trees
from tests.unit.trees import grown_trees


def batch_of(rows: list[Row], packing: Packing, inputs: LossInputs | None = None) -> Batch:
    trees = trees_of(rows, range(len(rows)), packing.pack, merge=packing.merge)
    return make_batch(rows, lay_out([run for tree in trees for run in tree], packing), inputs)


@pytest.mark.parametrize("pack", Pack)
@given(token_trees())
def test_a_batch_lists_what_its_rows_say(pack: Pack, rows: list[Row]) -> None:
    old = [np.arange(len(row.tokens), dtype=np.float32) for row in rows]
    reference = [2 * values for values in old]
    weights = np.linspace(0.1, 0.9, len(rows))
    packing = Packing(capacity=999, pack=pack, total_multiple=16)
    batch = batch_of(rows, packing, LossInputs(weights, old, reference))
    assert batch.tokens.shape == (1, batch.starts[-1]) and batch.starts[-1] % 16 == 0
    tokens, data = batch.tokens[0], batch.data
    path = paths(batch.starts, batch.shared)
    for index, at in zip(batch.rows, path, strict=True):
        row = rows[index]
        assert tokens[at[: len(row.tokens)]].tolist() == row.tokens.tolist()
        assert batch.position[at].tolist() == list(range(len(at))), "padding continues its row"
    assert not tokens[batch.filled :].any()
    learned = [
        (line, t)
        for line, index in enumerate(batch.rows)
        for t in np.flatnonzero(rows[index].learn)
    ]
    assert data.sequence.tolist() == [line for line, _ in learned]
    assert data.sequences == len(rows)
    assert data.old_logprob is not None and data.reference_logprob is not None
    for place, (line, t) in enumerate(learned):
        row = rows[batch.rows[line]]
        scored = batch.term[place]
        assert batch.scored[scored] == row.tokens[t]
        assert batch.score_at[scored] == path[line][t - 1]
        assert data.advantage[place] == row.advantage[t]
        assert data.sampler_logprob[place] == row.sampler_logprob[t]
        assert data.old_logprob[place] == t and data.reference_logprob[place] == 2 * t
        assert data.weight[place] == np.float32(weights[batch.rows[line]])
    anchors = [
        (line, t)
        for line, index in enumerate(batch.rows)
        for t in np.flatnonzero(rows[index].predict)
    ]
    assert batch.predict_at.tolist() == [path[line][t] for line, t in anchors]
    assert data.target.tolist() == [rows[batch.rows[line]].target[t] for line, t in anchors]


@given(token_trees())
def test_a_token_that_several_rows_learn_is_scored_once(rows: list[Row]) -> None:
    batch = batch_of(rows, Packing(capacity=999))
    histories = {
        (row.tree, *row.tokens[: t + 1]) for row in rows for t in np.flatnonzero(row.learn)
    }
    assert len(batch.scored) == len(batch.score_at) == len(histories)


@given(grown_trees())
def test_a_turn_s_learned_tokens_have_its_number_and_no_other_s(tree: RolloutTree) -> None:
    rows = rows_from_tree(tree)
    batch = batch_of(rows, Packing(capacity=999))
    turns = np.concatenate([rows[index].turn[rows[index].learn] for index in batch.rows])
    assert batch.data.turns == len(tree.turns) - 1
    pairs = set(zip(batch.data.turn.tolist(), turns.tolist(), strict=True))
    assert len(pairs) == batch.data.turns, "numbers and turns match one to one"
    assert [int((turns == index).sum()) for index in range(1, len(tree.turns))] == [
        len(turn.action_ids) for turn in tree.turns[1:]
    ]


def test_a_dummy_batch_learns_nothing() -> None:
    packing = Packing(capacity=64, total_multiple=16)
    batch = make_batch([row_of([1, 2])], lay_out([], packing))
    assert batch.tokens.shape == (1, 16) and batch.starts == [0, 16] and batch.filled == 0
    data = batch.data
    assert data.advantage.numel() == data.target.numel() == batch.scored.numel() == 0
    assert data.sequences == data.turn.numel() == data.turns == 0
    assert batch.to(torch.device("cpu")).data.old_logprob is None


def test_a_learned_first_token_is_refused() -> None:
    row = row_of([1, 2, 3])
    row.learn[0] = True
    with pytest.raises(ValueError, match="row 0 learns its first token"):
        batch_of([row], Packing(capacity=8))
