"""Micro-batches hold every learned token and anchor of their rows exactly once, end to end."""

import numpy as np
import pytest
import torch
from hypothesis import given

from megatron_trace.learning.batches import LossInputs, make_batch
from megatron_trace.learning.packing import Packing, lay_out
from megatron_trace.learning.rows import Row, rows_from_tree
from megatron_trace.tree import RolloutTree
from tests.unit.trees import grown_trees


def row_of(length: int, seed: int) -> Row:
    random = np.random.default_rng(seed)
    learn, predict = random.random(length) < 0.5, random.random(length) < 0.3
    learn[0] = False
    floats = random.random((3, length)).astype(np.float32)
    return Row(random.integers(1, 90, length), learn, floats[0], floats[1], predict, floats[2])


def test_a_batch_lists_what_its_rows_say() -> None:
    rows = [row_of(length, length) for length in (7, 12, 9)]
    old = [np.arange(len(row.tokens), dtype=np.float32) for row in rows]
    reference = [2 * values for values in old]
    weights = np.array([0.1, 0.2, 0.3])
    packing = Packing(capacity=99, row_multiple=4, total_multiple=16)
    micro_batch = lay_out([len(row.tokens) for row in rows], [2, 0], packing)
    batch = make_batch(rows, micro_batch, LossInputs(weights, old, reference))
    assert batch.tokens.shape == (1, 32)
    assert batch.rows == [2, 0]
    assert batch.starts.tolist() == [0, 12, 32], "the padding of the whole belongs to the last row"
    assert batch.longest == 20
    tokens, data = batch.tokens[0], batch.data
    assert not tokens[9:12].any() and not tokens[19:].any()
    learned = [
        (line, t) for line, index in enumerate([2, 0]) for t in np.flatnonzero(rows[index].learn)
    ]
    assert data.sequence.tolist() == [line for line, _ in learned] and data.sequences == 2
    turns = [(line, int(rows[[2, 0][line]].predict[:t].sum())) for line, t in learned]
    assert data.turn.tolist() == [sorted(set(turns)).index(turn) for turn in turns]
    assert data.turns == len(set(turns))
    assert batch.position[batch.learn_at].tolist() == [t - 1 for _, t in learned]
    assert data.old_logprob is not None and data.reference_logprob is not None
    for place, (line, t) in enumerate(learned):
        row = rows[batch.rows[line]]
        assert batch.learned[place] == row.tokens[t] == tokens[batch.learn_at[place] + 1]
        assert data.advantage[place] == row.advantage[t]
        assert data.sampler_logprob[place] == row.sampler_logprob[t]
        assert data.old_logprob[place] == t and data.reference_logprob[place] == 2 * t
        assert data.weight[place] == np.float32(weights[batch.rows[line]])
    anchors = [
        (line, t) for line, index in enumerate([2, 0]) for t in np.flatnonzero(rows[index].predict)
    ]
    assert [(int(at >= 12), int(batch.position[at])) for at in batch.predict_at] == anchors
    assert data.target.tolist() == [rows[batch.rows[line]].target[t] for line, t in anchors]


@given(grown_trees())
def test_a_turn_s_learned_tokens_have_its_number_and_no_other_s(tree: RolloutTree) -> None:
    rows = rows_from_tree(tree)
    lengths = [len(row.tokens) for row in rows]
    data = make_batch(rows, lay_out(lengths, range(len(rows)), Packing(capacity=999))).data
    sizes = [len(turn.action_ids) for turn in tree.turns[1:]]
    assert data.turns == len(sizes)
    expected = [number for number, size in enumerate(sizes) for _ in range(size)]
    assert data.turn.tolist() == expected


def test_a_dummy_batch_learns_nothing() -> None:
    batch = make_batch([row_of(5, 0)], lay_out([5], [], Packing(capacity=64, total_multiple=16)))
    assert batch.tokens.shape == (1, 16) and batch.starts.tolist() == [0, 16]
    data = batch.data
    assert (
        data.advantage.numel()
        == data.target.numel()
        == batch.learned.numel()
        == data.sequences
        == 0
    )
    assert data.turn.numel() == data.turns == 0
    assert batch.to(torch.device("cpu")).data.old_logprob is None


def test_a_learned_first_token_is_refused() -> None:
    row = row_of(5, 0)
    row.learn[0] = True
    with pytest.raises(ValueError, match="row 0 learns its first token"):
        make_batch([row], lay_out([5], [0], Packing(capacity=8)))
