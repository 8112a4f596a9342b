"""The anchors of a step's rows in one order, row after row, whatever layout computes them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from megatron_trace.learning.batches import Batch
from megatron_trace.learning.rows import Row
from megatron_trace.tree import ROOT


def targets(rows: Sequence[Row]) -> Tensor:
    """The predictor's targets at the m anchors of `rows`, float32 [m]."""
    return torch.from_numpy(np.concatenate([row.target[row.predict] for row in rows]))


def roots(rows: Sequence[Row]) -> Tensor:
    """Which of the m anchors of `rows` are roots, bool [m]."""
    return torch.from_numpy(np.concatenate([row.turn[row.predict] == ROOT for row in rows]))


def states_in_order(
    rows: Sequence[Row], seen: Iterable[tuple[Batch, Tensor]], width: int, device: torch.device
) -> Tensor:
    """The final hidden states at the m anchors of `rows`, float32 [m, width].

    States that another rank computed are 0.

    Args:
        seen: micro-batches of this rank, each with the states at its own anchors, [·, width].
    """
    # A micro-batch lists its anchors row after row. So each row's states go to one range of the
    # result.
    starts = np.cumsum([0, *(int(row.predict.sum()) for row in rows)])
    states = torch.zeros(int(starts[-1]), width, device=device)
    for batch, hidden in seen:
        at = [np.zeros(0, dtype=np.int64)]
        at += [np.arange(starts[row], starts[row + 1]) for row in batch.rows]
        states[np.concatenate(at)] = hidden
    return states
