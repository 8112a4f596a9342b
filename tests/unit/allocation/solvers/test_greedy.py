"""Units by falling gain per cost."""

import numpy as np

from megatron_trace.allocation.solvers.greedy import best_units


def test_units_are_taken_by_gain_per_cost_while_they_fit() -> None:
    gains = np.array([[0.6, 0.3], [0.5, 0.4]])
    assert best_units(gains, np.array([1.0, 1.0]), 3).tolist() == [1, 2]
    assert best_units(gains, np.array([3.0, 1.0]), 4).tolist() == [0, 2]
    assert best_units(gains, np.array([3.0, 1.0]), 5).tolist() == [1, 2]
