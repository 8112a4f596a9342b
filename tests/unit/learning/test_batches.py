"""Micro-batches hold every learned token and anchor exactly once, whatever the ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.learning.batches import make_batch, plan_micro_batches, split_updates
from megatron_trace.learning.rows import Row


def row_of(length: int, seed: int) -> Row:
    random = np.random.default_rng(seed)
    learn, predict = random.random(length) < 0.5, random.random(length) < 0.3
    learn[0] = False
    floats = random.random((3, length)).astype(np.float32)
    return Row(random.integers(1, 90, length), learn, floats[0], floats[1], predict, floats[2])


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(LENGTHS, st.integers(1, 4), st.integers(40, 200), st.sampled_from([1, 8]))
def test_plan_computes_every_row_once_within_the_bound(
    lengths: list[int], ranks: int, bound: int, multiple: int
) -> None:
    plan = plan_micro_batches(
        lengths, range(len(lengths)), ranks=ranks, micro_batch_tokens=bound, multiple=multiple
    )
    assert len(plan) == ranks
    assert len({len(batches) for batches in plan}) == 1, "all ranks run equally many micro-batches"
    planned = [index for batches in plan for rows in batches for index in rows]
    assert sorted(planned) == list(range(len(lengths)))
    for batches in plan:
        for rows in filter(None, batches):
            longest = max(lengths[index] for index in rows)
            assert len(rows) * -(-longest // multiple) * multiple <= bound


def test_ranks_get_nearly_the_same_tokens() -> None:
    lengths = np.random.default_rng(0).integers(50, 1000, 200).tolist()
    plan = plan_micro_batches(lengths, range(200), ranks=4, micro_batch_tokens=4000)
    tokens = [sum(lengths[index] for rows in batches for index in rows) for batches in plan]
    assert max(tokens) < 1.02 * min(tokens)


def test_rows_of_like_length_share_a_micro_batch() -> None:
    plan = plan_micro_batches([2, 30, 3, 29], range(4), ranks=1, micro_batch_tokens=60)
    assert plan == [[[1, 3], [2, 0]]]


def test_a_row_too_long_names_the_setting() -> None:
    with pytest.raises(ValueError, match=r"41 tokens .* learning\.micro_batch_tokens=40"):
        plan_micro_batches([3, 41], [0, 1], ranks=1, micro_batch_tokens=40)


@given(st.integers(1, 50), st.integers(1, 6))
def test_updates_share_all_rows_evenly(count: int, updates: int) -> None:
    parts = split_updates(count, updates, np.random.default_rng(1))
    assert sorted(index for part in parts for index in part) == list(range(count))
    assert len(parts) == min(updates, count)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == split_updates(count, updates, np.random.default_rng(1))


def test_batch_lists_what_the_rows_say() -> None:
    rows = [row_of(length, length) for length in (7, 12, 9)]
    old = [np.arange(len(row.tokens), dtype=np.float32) for row in rows]
    batch = make_batch(rows, [2, 0], old=old, multiple=4)
    assert batch.tokens.shape == (2, 12)
    assert batch.rows == [2, 0]
    assert not batch.tokens[0, 9:].any() and not batch.tokens[1, 7:].any()
    listed = [(line, t) for line, index in enumerate([2, 0]) for t in np.flatnonzero(rows[index].learn)]
    assert list(zip(batch.learn_row.tolist(), batch.learn_column.tolist(), strict=True)) == listed
    for position, (line, t) in enumerate(listed):
        row = rows[batch.rows[line]]
        assert batch.learned[position] == row.tokens[t]
        assert batch.advantage[position] == row.advantage[t]
        assert batch.sampler_logprob[position] == row.sampler_logprob[t]
        assert batch.old_logprob is not None and batch.old_logprob[position] == t
    anchors = [(line, t) for line, index in enumerate([2, 0]) for t in np.flatnonzero(rows[index].predict)]
    assert list(zip(batch.predict_row.tolist(), batch.predict_column.tolist(), strict=True)) == anchors
    assert batch.target.tolist() == [rows[batch.rows[line]].target[t] for line, t in anchors]


def test_a_dummy_batch_learns_nothing() -> None:
    batch = make_batch([row_of(5, 0)], [], old=None, multiple=16)
    assert batch.tokens.shape == (1, 16)
    assert batch.advantage.numel() == batch.target.numel() == batch.learned.numel() == 0
    assert batch.to(torch.device("cpu")).old_logprob is None


def test_a_learned_first_token_is_refused() -> None:
    row = row_of(5, 0)
    row.learn[0] = True
    with pytest.raises(ValueError, match="row 0 learns its first token"):
        make_batch([row], [0])
