"""A step's anchors in one order, whichever micro-batches computed them."""

from dataclasses import replace

import numpy as np
import torch

from megatron_trace.learning.anchors import roots, states_in_order, targets
from megatron_trace.learning.batches import make_batch
from megatron_trace.learning.packing import Packing, lay_out
from megatron_trace.learning.rows import Row
from megatron_trace.learning.runs import Run

WIDTH = 3


def row(anchors: list[int], target: float, length: int = 6) -> Row:
    predict = np.isin(np.arange(length), anchors)
    zeros = np.zeros(length, dtype=np.float32)
    nothing = np.zeros(length, dtype=bool)
    right = np.where(predict, target + np.arange(length), 0).astype(np.float32)
    turn = np.zeros(length, dtype=np.int64)
    return Row(np.arange(length), nothing, zeros, zeros, predict, right, turn, 0)


ROWS = [row([1, 3], 10), row([], 20), row([0, 2, 5], 30), row([4], 40)]


def test_targets_lie_row_after_row() -> None:
    assert targets(ROWS).tolist() == [11, 13, 30, 32, 35, 44]


def test_roots_are_the_anchors_of_the_first_turn() -> None:
    turn = np.array([0, 0, 1, 1, 4, 4])
    rows = [replace(row, turn=turn) for row in ROWS]
    assert roots(rows).tolist() == [True, False, True, False, False, False]
    assert roots(rows).dtype == torch.bool
    assert roots(ROWS).tolist() == [True] * 6


def test_states_lie_where_their_targets_do_and_are_zero_where_another_rank_has_them() -> None:
    seen = []
    for indices in ([3, 0], [1], []):  # the third row is another rank's; a dummy has none
        runs = [Run(index, len(ROWS[index].tokens), 0) for index in indices]
        batch = make_batch(ROWS, lay_out(runs, Packing(capacity=64)))
        seen.append((batch, batch.data.target[:, None].expand(-1, WIDTH)))
    states = states_in_order(ROWS, seen, WIDTH, torch.device("cpu"))
    assert states.shape == (6, WIDTH)
    assert states[:, 0].tolist() == [11, 13, 0, 0, 0, 44]
