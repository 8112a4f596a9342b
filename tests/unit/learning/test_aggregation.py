"""Every learned token of an update has its weight, whatever rank and micro-batch compute it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_trace.config import Aggregation, LossConfig
from megatron_trace.learning.aggregation import row_weights, teaches_policy
from megatron_trace.learning.rows import Row


def row_of(learned: int, rollout: int = 0, advantage: float = 1.0, filtered: bool = False) -> Row:
    """A row of a prompt token and `learned` sampled ones."""
    learn = np.array([False] + [True] * learned)
    zeros = np.zeros(learned + 1, dtype=np.float32)
    values = np.where(learn, np.float32(advantage), np.float32(0.0))
    turn = np.zeros(learned + 1, dtype=np.int64)
    return Row(
        np.arange(learned + 1), learn, values, zeros, ~learn, zeros, turn, rollout, 0, filtered
    )


LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def update_loss(losses: list[np.ndarray], weights: np.ndarray) -> float:
    return sum(
        float(weight * loss) for row, weight in zip(losses, weights, strict=True) for loss in row
    )


@given(LENGTHS, st.data())
def test_the_weights_make_the_means_of_the_papers(lengths: list[int], data: st.DataObject) -> None:
    rows = [row_of(length, number) for number, length in enumerate(lengths)]
    selected = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    random = np.random.default_rng(sum(lengths))
    losses = [random.normal(size=length) for length in lengths]
    taught = [losses[index] for index in selected if lengths[index]]
    sequences = max(len(taught), 1)
    expected = {
        Aggregation.token: sum(row.sum() for row in taught) / max(sum(map(len, taught)), 1),
        Aggregation.sequence: sum(row.mean() for row in taught) / sequences,
        Aggregation.dr_grpo: sum(row.sum() / 12 for row in taught) / sequences,
    }
    for aggregation, loss in expected.items():
        learning = LossConfig(aggregation=aggregation, dr_grpo_tokens=12)
        weights = row_weights(rows, selected, learning)
        assert weights.shape == (len(rows),) and weights.dtype == np.float64
        assert update_loss(losses, weights) == pytest.approx(loss, rel=1e-12, abs=1e-12)


def test_rows_that_are_not_selected_or_filtered_count_in_no_mean() -> None:
    rows = [row_of(2, 0), row_of(0, 1), row_of(3, 2), row_of(5, 3), row_of(4, 4, filtered=True)]
    np.testing.assert_allclose(
        row_weights(rows, [3, 0, 1, 4], LossConfig()), [1 / 7, 0, 0, 1 / 7, 0]
    )
    by_sequence = LossConfig(aggregation=Aggregation.sequence)
    np.testing.assert_allclose(
        row_weights(rows, [3, 0, 1, 4], by_sequence), [1 / 4, 0, 0, 1 / 10, 0]
    )


@pytest.mark.parametrize("aggregation", Aggregation)
def test_a_rollout_in_several_rows_weighs_as_in_one(aggregation: Aggregation) -> None:
    settings = LossConfig(aggregation=aggregation, dr_grpo_tokens=12)
    one = row_weights([row_of(6, 0), row_of(3, 1)], [0, 1], settings)
    rows = [row_of(2, 0), row_of(0, 0), row_of(4, 0), row_of(3, 1)]
    several = row_weights(rows, range(4), settings)
    np.testing.assert_allclose(several, [one[0], 0.0, one[0], one[1]])


@pytest.mark.parametrize("aggregation", Aggregation)
def test_an_update_without_learned_tokens_has_finite_weights(aggregation: Aggregation) -> None:
    learning = LossConfig(aggregation=aggregation, dr_grpo_tokens=4)
    assert row_weights([row_of(0, 0), row_of(0, 1)], [0, 1], learning).tolist() == [0.0, 0.0]


def test_dr_grpo_without_its_constant_is_refused() -> None:
    with pytest.raises(ValueError, match=r"learning\.loss\.dr_grpo_tokens"):
        row_weights([row_of(1)], [0], LossConfig(aggregation=Aggregation.dr_grpo))


@pytest.mark.parametrize(
    ("row", "settings", "teaches"),
    [
        (row_of(2), {}, True),
        (row_of(2, advantage=0.0), {}, False),
        (row_of(2, advantage=0.0), {"reference_kl": 0.1}, True),
        (row_of(2, advantage=0.0), {"entropy_bonus": 0.01}, True),
        (row_of(0), {"reference_kl": 0.1, "entropy_bonus": 0.01}, False),
        (row_of(2, advantage=0.0, filtered=True), {"reference_kl": 0.1}, False),
    ],
)
def test_a_row_teaches_the_policy_by_advantages_or_by_terms_of_every_token(
    row: Row, settings: dict[str, float], teaches: bool
) -> None:
    assert teaches_policy(row, LossConfig(**settings)) is teaches
