"""The learning rates rise, fall and stay."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import Decay, OptimizerConfig
from megatron_trace.learning.schedule import learning_rate_factor


def factors(count: int, **settings: object) -> list[float]:
    learning = OptimizerConfig(**settings)
    return [learning_rate_factor(update, learning) for update in range(count)]


def test_by_default_the_rates_never_change() -> None:
    assert factors(5) == [1.0] * 5


def test_warm_up_rises_by_equal_steps_to_the_whole_rate() -> None:
    assert factors(6, warmup_steps=3) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_linear_decay_falls_by_equal_steps_after_warm_up_and_stays() -> None:
    found = factors(
        9,
        warmup_steps=1,
        decay=Decay.linear,
        decay_steps=4,
        min_learning_rate_factor=0.2,
    )
    assert found == pytest.approx([0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2, 0.2])


def test_a_cosine_decay_is_half_a_cosine() -> None:
    found = factors(7, decay=Decay.cosine, decay_steps=4, min_learning_rate_factor=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * update / 4)) / 2 for update in range(5)]
    assert found == pytest.approx([*expected, 0.1, 0.1])


@given(
    st.sampled_from(list(Decay)),
    st.integers(0, 20),
    st.integers(1, 50),
    st.floats(0, 1),
    st.integers(0, 100),
)
def test_the_factor_rises_through_warm_up_and_falls_after_it(
    decay: Decay, warmup: int, steps: int, lowest: float, update: int
) -> None:
    settings = OptimizerConfig(
        warmup_steps=warmup, decay=decay, decay_steps=steps, min_learning_rate_factor=lowest
    )
    now, then = learning_rate_factor(update, settings), learning_rate_factor(update + 1, settings)
    assert 0.0 <= now <= 1.0
    assert now < then if update < warmup else now >= then
    assert learning_rate_factor(warmup, settings) == 1.0
    if decay is not Decay.constant and update >= warmup + steps:
        assert now == pytest.approx(lowest)
