"""A step's plan: every row once an epoch, the same on all ranks, gradients in the last pass of an
update.
"""

from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import BatchingConfig, LossConfig, Pack
from megatron_trace.learning.aggregation import row_weights
from megatron_trace.learning.packing import Layout, Packing, Pass, plan_pass
from megatron_trace.learning.rows import Row
from megatron_trace.learning.step_plan import StepPlan, plan_step, split_updates

PACKING = Packing(capacity=64)


ROLLOUTS = count()
"""Every row is of another rollout."""


def row(length: int, advantage: float, tree: int = 0) -> Row:
    learn = np.arange(length) > 0
    nothing = np.zeros(length, dtype=np.float32)
    return Row(
        tokens=np.arange(length),
        learn=learn,
        advantage=np.where(learn, advantage, 0).astype(np.float32),
        sampler_logprob=nothing,
        predict=np.zeros(length, dtype=bool),
        target=nothing,
        turn=np.zeros(length, dtype=np.int64),
        rollout=next(ROLLOUTS),
        tree=tree,
    )


LENGTHS = (5, 9, 12, 17, 18, 23, 25, 28, 30, 31, 6)
ROWS = [row(length, length % 3, tree) for tree, length in enumerate(LENGTHS)]
TEACHING = {index for index, row in enumerate(ROWS) if row.advantage.any()}


def plan(layout: Layout, *, epochs: int = 1, updates: int = 1, rows: list[Row] = ROWS) -> StepPlan:
    batching = BatchingConfig(epochs=epochs, updates_per_step=updates)
    return plan_step(rows, batching, LossConfig(), layout, np.random.default_rng(1))


def plans(ranks: int, **batching: int) -> list[StepPlan]:
    return [plan(Layout(PACKING, rank, ranks), **batching) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("updates", [1, 3])
def test_ranks_together_compute_every_row_once_an_epoch(ranks: int, updates: int) -> None:
    of_ranks = plans(ranks, epochs=2, updates=updates)
    for epoch in range(2):
        computed = [
            index
            for one in of_ranks
            for update in one.epochs[epoch]
            for planned in update.passes
            for micro_batch in planned.micro_batches
            for index in micro_batch.rows
        ]
        assert sorted(computed) == list(range(len(ROWS)))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_have_equally_many_micro_batches_in_every_pass(ranks: int) -> None:
    of_ranks = plans(ranks, updates=2)
    for updates in zip(*(one.epochs[0] for one in of_ranks), strict=True):
        for passes in zip(*(update.passes for update in updates), strict=True):
            assert len({len(planned.micro_batches) for planned in passes}) == 1


def test_only_rows_that_teach_the_policy_are_in_the_backward_pass_which_comes_last() -> None:
    (update,) = plan(Layout(PACKING)).epochs[0]
    assert [planned.backward for planned in update.passes] == [False, True]
    rest, teaching = ({i for m in p.micro_batches for i in m.rows} for p in update.passes)
    assert teaching == TEACHING
    assert rest == set(range(len(ROWS))) - TEACHING


@pytest.mark.parametrize(("pack", "expected"), [(Pack.tree, {0, 1}), (Pack.rows, {1})])
def test_a_tree_is_computed_in_one_pass(pack: Pack, expected: set[int]) -> None:
    rows = [row(5, 0, 0), row(7, 1, 0), row(7, 0, 1)]
    (update,) = plan(Layout(Packing(capacity=64, pack=pack)), rows=rows).epochs[0]
    assert {i for m in update.passes[-1].micro_batches for i in m.rows} == expected


def test_an_update_without_teaching_rows_still_has_a_backward_pass_of_a_dummy() -> None:
    interleaved = Packing(capacity=64, count_multiple=2)
    (update,) = plan(Layout(interleaved), rows=[row(5, 0, 0), row(7, 0, 1)]).epochs[0]
    assert update.passes[-1].backward
    assert [one.rows for one in update.passes[-1].micro_batches] == [[], []]


def test_an_update_s_weights_are_of_its_own_rows() -> None:
    for update in plan(Layout(PACKING), updates=3).epochs[0]:
        selected = sorted(i for p in update.passes for m in p.micro_batches for i in m.rows)
        expected = row_weights(ROWS, selected, LossConfig())
        np.testing.assert_array_equal(update.weights, expected)


@pytest.mark.parametrize("ranks", [1, 2])
def test_micro_batches_are_filled_up_to_the_longest_of_all_ranks_where_stages_need_it(
    ranks: int,
) -> None:
    found = [everything(Layout(PACKING, rank, ranks, True)) for rank in range(ranks)]
    micro_batches = [micro_batch for planned in found for micro_batch in planned.micro_batches]
    longest = max(sum(len(ROWS[index].tokens) for index in one.rows) for one in micro_batches)
    assert {one.starts[-1] for one in micro_batches} == {longest}
    alone = everything(Layout(PACKING)).micro_batches
    assert len({one.starts[-1] for one in alone}) > 1


def everything(layout: Layout) -> Pass:
    return plan_pass(ROWS, range(len(ROWS)), layout, backward=False)


def test_a_step_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        plan(Layout(PACKING), rows=[])


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50), st.integers(1, 6))
def test_updates_share_all_trees_evenly(trees: list[int], updates: int) -> None:
    parts = split_updates(trees, updates, np.random.default_rng(1))
    assert sorted(index for part in parts for index in part) == list(range(len(trees)))
    assert len(parts) == min(updates, len(set(trees)))
    of_parts = [{trees[index] for index in part} for part in parts]
    assert sum(map(len, of_parts)) == len(set(trees)), "no tree is in two parts"
    assert max(map(len, of_parts)) - min(map(len, of_parts)) <= 1
    assert parts == split_updates(trees, updates, np.random.default_rng(1))
