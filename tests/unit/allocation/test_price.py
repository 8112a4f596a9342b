"""One price for the rollouts of a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.allocation.price import Offers, effective_size


def offers(sizes, mixed, chances, correlation=0.1, cost=None) -> Offers:
    size = np.array(sizes, dtype=float)
    return Offers(
        size=size,
        mixed=np.array(mixed),
        probe=np.where(size > 0, 1.0, 2.0),
        cost=np.ones(len(size)) if cost is None else np.array(cost),
        chance=np.array(chances, dtype=float),
        correlation=correlation,
    )


def test_the_first_rollout_is_worth_one_and_each_further_one_less() -> None:
    gains = np.diff(effective_size(np.arange(10), 0.1))
    assert gains[0] == 1.0
    assert np.all(np.diff(gains) < 0)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans(), st.floats(0, 1)), min_size=1, max_size=20),
    st.integers(2, 200),
    st.sampled_from([0.02, 0.1, 0.5]),
)
def test_at_the_clearing_price_the_budget_pays_for_the_demand(trees, budget, correlation) -> None:
    sizes, mixed, chances = zip(*trees, strict=True)
    # A tree of no or one rollout is not mixed.
    mixed = [size >= 2 and one for size, one in zip(sizes, mixed, strict=True)]
    some = offers(sizes, mixed, chances, correlation)
    price = some.clearing_price(budget)
    taken = some.mixed | (some.gain(price) > 0)
    assert some.demand(price)[taken].sum() <= budget


def test_the_surplus_is_the_best_of_all_fills() -> None:
    price, chance = 0.3, 0.4
    some = offers([0], [False], [chance])
    fills = effective_size(2 + np.linspace(0, 30, 30_001), 0.1) - price * np.linspace(0, 30, 30_001)
    assert some.gain(price)[0] == pytest.approx(chance * fills.max() / 2 - price, abs=1e-6)


def test_a_larger_chance_and_a_smaller_cost_gain_more() -> None:
    some = offers([0, 0, 2, 2], [False] * 4, [0.2, 0.4, 0.3, 0.3], cost=[1, 1, 1, 0.5])
    gain = some.gain(0.1)
    assert gain[1] > gain[0]
    assert gain[3] > gain[2]


def test_a_mixed_tree_is_not_probed() -> None:
    assert offers([4], [True], [0.5]).gain(0.1)[0] == -np.inf
