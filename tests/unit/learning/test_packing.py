"""Rows are packed once each, within the bound, and all ranks get nearly the same work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.learning.packing import Packing, plan_micro_batches

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=30)
PACKINGS = st.builds(
    Packing,
    capacity=st.integers(64, 200),
    row_multiple=st.sampled_from([1, 4]),
    total_multiple=st.sampled_from([4, 16]),
    count_multiple=st.sampled_from([1, 3]),
    attention_scale=st.sampled_from([10.0, float("inf")]),
)


@given(LENGTHS, st.integers(1, 4), PACKINGS)
def test_a_plan_computes_every_row_once_within_the_bound(
    lengths: list[int], ranks: int, packing: Packing
) -> None:
    plan = plan_micro_batches(lengths, range(len(lengths)), ranks=ranks, packing=packing)
    assert len(plan) == ranks
    (count,) = {len(batches) for batches in plan}
    assert count % packing.count_multiple == 0, "all ranks run equally many micro-batches"
    planned = [index for batches in plan for rows in batches for index in rows]
    assert sorted(planned) == list(range(len(lengths)))
    for rows in (rows for batches in plan for rows in batches):
        assert (
            packing.total(sum(packing.padded(lengths[index]) for index in rows)) <= packing.capacity
        )


@pytest.mark.parametrize("attention_scale", [float("inf"), 2000.0])
def test_ranks_get_nearly_the_same_cost_and_little_padding(attention_scale: float) -> None:
    lengths = np.random.default_rng(0).integers(50, 1000, 200).tolist()
    packing = Packing(capacity=4000, total_multiple=16, attention_scale=attention_scale)
    plan = plan_micro_batches(lengths, range(200), ranks=4, packing=packing)
    costs = [
        sum(packing.cost(lengths[index]) for rows in batches for index in rows) for batches in plan
    ]
    assert max(costs) < 1.02 * min(costs)
    for together in zip(*plan, strict=True):
        at_once = [sum(packing.cost(lengths[index]) for index in rows) for rows in together]
        assert max(at_once) < 1.05 * min(at_once), (
            "ranks work on micro-batches of one number at the same time"
        )
    tokens = [sum(lengths[index] for index in rows) for batches in plan for rows in batches]
    computed = sum(packing.total(total) for total in tokens)
    assert sum(tokens) > 0.99 * computed
    assert len(plan[0]) <= -(-sum(lengths) // (4 * 4000)) + 1, "as few micro-batches as hold them"


def test_long_rows_count_more_where_attention_costs_more() -> None:
    lengths = [100, 50, 50, 50, 50]
    tokens_only = plan_micro_batches(lengths, range(5), ranks=2, packing=Packing(capacity=200))
    assert sorted(map(len, (batches[0] for batches in tokens_only))) == [2, 3]
    attention = Packing(capacity=200, attention_scale=20.0)
    balanced = plan_micro_batches(lengths, range(5), ranks=2, packing=attention)
    assert sorted(balanced[0][0] + balanced[1][0]) == [0, 1, 2, 3, 4]
    assert [0] in [balanced[0][0], balanced[1][0]]


def test_a_row_too_long_names_the_setting() -> None:
    with pytest.raises(ValueError, match=r"41 tokens .* learning\.batching\.micro_batch_tokens=40"):
        plan_micro_batches([3, 41], [0, 1], ranks=1, packing=Packing(capacity=40))
