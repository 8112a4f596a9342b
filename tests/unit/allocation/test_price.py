"""A running price spends about what an allocation with all offers known would."""

import numpy as np
import pytest

from megatron_trace.allocation.price import RunningPrice


def test_everything_is_taken_while_the_budget_pays_for_all_that_comes() -> None:
    assert RunningPrice().take([0.1, 0.2], coming=3, affordable=5) == 0.0


def test_the_price_is_the_quantile_that_the_budget_leaves() -> None:
    price = RunningPrice()
    price.seen = [0.1, 0.2, 0.3, 0.4]
    assert price.take([0.5], coming=9, affordable=5) == pytest.approx(0.3)


def test_a_stream_of_offers_is_taken_nearly_as_well_as_if_all_were_known() -> None:
    rng, price, budget = np.random.default_rng(0), RunningPrice(), 100
    offers, taken = rng.random(1000), []
    for number, offer in enumerate(offers):
        left = budget - len(taken)
        if left and offer >= price.take([float(offer)], coming=999 - number, affordable=left):
            taken.append(offer)
    assert 80 <= len(taken) <= 100
    assert sum(taken) > 0.8 * np.sort(offers)[-budget:].sum()
