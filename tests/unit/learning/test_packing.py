"""Trees are packed once each, within the bound, and all ranks get nearly the same work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import Pack
from megatron_trace.learning.packing import Layout, Packing, plan_micro_batches, plan_pass
from megatron_trace.learning.pieces import size
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import Run, trees_of
from tests.unit.learning.some_rows import row_of, token_trees

PACKINGS = st.builds(
    Packing,
    capacity=st.integers(16, 60),
    pack=st.sampled_from(Pack),
    merge=st.booleans(),
    total_multiple=st.sampled_from([1, 4, 16]),
    count_multiple=st.sampled_from([1, 3]),
    attention_scale=st.sampled_from([10.0, float("inf")]),
)


def of_lengths(lengths: list[int]) -> list[list[Run]]:
    return [[Run(index, length, 0)] for index, length in enumerate(lengths)]


@given(token_trees(), st.integers(1, 4), PACKINGS, st.booleans())
def test_a_plan_computes_every_row_once_within_the_bound(
    rows: list[Row], ranks: int, packing: Packing, equal_lengths: bool
) -> None:
    everything = range(len(rows))
    passes = [
        plan_pass(rows, everything, Layout(packing, rank, ranks, equal_lengths), backward=True)
        for rank in range(ranks)
    ]
    (count,) = {len(planned.micro_batches) for planned in passes}
    assert count % packing.count_multiple == 0, "all ranks run equally many micro-batches"
    batches = [batch for planned in passes for batch in planned.micro_batches]
    assert sorted(index for batch in batches for index in batch.rows) == list(everything)
    for batch in batches:
        assert batch.starts[-1] <= packing.capacity
        assert batch.starts[-1] % packing.total_multiple == 0
        trees = trees_of(rows, batch.rows, packing.pack, merge=packing.merge)
        assert size(batch.runs) == sum(map(size, trees)), "what meets in a batch is shared in it"
    if equal_lengths:
        assert len({batch.starts[-1] for batch in batches}) == 1


def test_trees_stay_whole_where_one_rank_has_room_for_them() -> None:
    trees = [[Run(2 * tree, 50, 0), Run(2 * tree + 1, 60, 45)] for tree in range(6)]
    plan = plan_micro_batches(trees, ranks=1, packing=Packing(capacity=130))
    assert len(plan[0]) == 3
    for rows in plan[0]:
        assert sorted(row // 2 for row in rows) == sorted(2 * [row // 2 for row in rows[::2]])


def test_a_tree_is_cut_for_a_second_rank_where_that_is_faster() -> None:
    bushy = [Run(0, 110, 0), *(Run(index, 110, 10) for index in range(1, 16))]
    plan = plan_micro_batches([bushy], ranks=2, packing=Packing(capacity=4000))
    assert sorted(len(rank[0]) for rank in plan) == [8, 8]
    trunk = [Run(0, 1001, 0), *(Run(index, 1001, 1000) for index in range(1, 16))]
    plan = plan_micro_batches([trunk], ranks=2, packing=Packing(capacity=4000))
    assert sorted(len(rank[0]) for rank in plan) in ([8, 8], [0, 16])
    assert max(1000 + len(rank[0]) for rank in plan) <= 1016


@pytest.mark.parametrize("attention_scale", [float("inf"), 2000.0])
def test_ranks_get_nearly_the_same_cost_and_little_padding(attention_scale: float) -> None:
    lengths = np.random.default_rng(0).integers(50, 1000, 200).tolist()
    packing = Packing(capacity=4000, total_multiple=16, attention_scale=attention_scale)
    rows = of_lengths(lengths)
    plan = plan_micro_batches(rows, ranks=4, packing=packing)

    def cost(indices: list[int]) -> float:
        return sum(packing.cost(rows[index]) for index in indices)

    costs = [sum(map(cost, batches)) for batches in plan]
    assert max(costs) < 1.02 * min(costs)
    for together in zip(*plan, strict=True):
        at_once = [cost(indices) for indices in together]
        assert max(at_once) < 1.05 * min(at_once), (
            "ranks work on micro-batches of one number at the same time"
        )
    tokens = [sum(lengths[index] for index in indices) for batches in plan for indices in batches]
    computed = sum(packing.total(total) for total in tokens)
    assert sum(tokens) > 0.99 * computed
    assert len(plan[0]) <= -(-sum(lengths) // (4 * 4000)) + 1, "as few micro-batches as hold them"


def test_long_rows_count_more_where_attention_costs_more() -> None:
    rows = of_lengths([100, 50, 50, 50, 50])
    tokens_only = plan_micro_batches(rows, ranks=2, packing=Packing(capacity=200))
    assert sorted(map(len, (batches[0] for batches in tokens_only))) == [2, 3]
    attention = Packing(capacity=200, attention_scale=20.0)
    balanced = plan_micro_batches(rows, ranks=2, packing=attention)
    assert sorted(balanced[0][0] + balanced[1][0]) == [0, 1, 2, 3, 4]
    assert [0] in [balanced[0][0], balanced[1][0]]


def test_shared_tokens_cost_nothing_but_the_attention_to_them() -> None:
    packing = Packing(capacity=200, attention_scale=50.0)
    whole = packing.cost([Run(0, 100, 0)])
    assert whole == pytest.approx(sum(1 + depth / 50 for depth in range(100)), rel=0.01)
    assert packing.cost([Run(0, 60, 0), Run(1, 100, 60)]) == pytest.approx(whole)


@pytest.mark.parametrize(("capacity", "multiple"), [(40, 1), (47, 16)])
def test_a_row_too_long_names_the_setting(capacity: int, multiple: int) -> None:
    packing = Packing(capacity=capacity, total_multiple=multiple)
    with pytest.raises(
        ValueError, match=rf"41 tokens .* learning\.batching\.micro_batch_tokens={capacity}"
    ):
        plan_micro_batches(of_lengths([3, 41]), ranks=1, packing=packing)


def test_a_row_that_begins_with_all_of_another_is_planned_too() -> None:
    rows = [row_of([1, 2, 3]), row_of([1, 2, 3]), row_of([1, 2])]
    (batch,) = plan_pass(rows, range(3), Layout(Packing(capacity=8)), backward=False).micro_batches
    assert [run.tokens for run in batch.runs] == [2, 1, 0]
