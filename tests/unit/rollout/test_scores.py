"""pass@k, against its definition."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.rollout.scores import pass_at

REWARDS = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=7)


@given(rewards=REWARDS, k=st.integers(2, 7))
def test_it_is_the_share_of_the_choices_that_hold_a_success(rewards: list[float], k: int) -> None:
    choices = list(combinations(rewards, k))
    found = pass_at([rewards], k).get(f"pass@{k}")
    if not choices:
        assert found is None
    else:
        share = sum(1.0 in choice for choice in choices) / len(choices)
        assert found == pytest.approx(share)


def test_it_is_the_mean_over_the_tasks_that_have_enough_rollouts() -> None:
    found = pass_at([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1]], 4)
    assert found == {"pass@2": pytest.approx((0.5 + 0 + 1) / 3), "pass@4": 0.5}
