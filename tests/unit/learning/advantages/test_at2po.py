"""AT²PO's turn-wise credit against its formula, arXiv 2601.04767."""

import math

import numpy as np
import pytest

from megatron_trace.config import AdvantageConfig
from megatron_trace.learning.advantages.at2po import estimate as at2po
from tests.unit.learning.advantages.small_tree import small_tree


@pytest.mark.parametrize("std", [True, False])
def test_a_turn_is_worth_its_followers_weighted_by_their_surprisal(std: bool) -> None:
    tree = small_tree()
    tree.turns[2].logprobs, tree.turns[6].logprobs, tree.turns[8].logprobs = (
        [-0.5, -0.1],
        [-2.0, -1.0],
        [0.0, -0.2],
    )
    a = (np.array([1.0, 0.0, 0.0, 1.0]) - 0.5) / (0.5 + 1e-6 if std else 1.0)
    weights = [math.exp(0.3), math.exp(1.5), math.exp(0.1)]
    branching = sum(w * v for w, v in zip(weights, (a[0], a[2], a[3]), strict=True)) / sum(weights)
    expected = [0.0, branching, a[0], a[0], a[1], a[1], a[2], a[2], a[3]]
    assert list(at2po(tree, AdvantageConfig(std=std))) == pytest.approx(expected, rel=1e-12)
