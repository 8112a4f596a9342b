"""Log-probabilities and predictions of rows under the present weights: forward passes alone."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from megatron_trace.learning.batches import Batch, LossInputs
from megatron_trace.learning.packing import Pass
from megatron_trace.learning.rows import Row
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.model import Scores
from megatron_trace.policy.reference import Reference
from megatron_trace.policy.schedule import run_pass

Scored = tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Log-probabilities and predictions of every row, [length] each."""


@torch.no_grad()
def score(
    chunks: Sequence[Any], rows: Sequence[Row], planned: Pass, parallel: ParallelState
) -> Scored:
    """Score all rows. Collective over all train ranks.

    Returns:
        for every row the log-probability of each learned token and the predicted success
        probability at each anchor, [length] each and 0 elsewhere; the same on every rank.
    """
    results = run_pass(chunks, rows, planned, LossInputs(), _keep_scores, parallel.device)
    starts = np.cumsum([0, *(len(row.tokens) for row in rows)])
    values = torch.zeros(2, int(starts[-1]), device=parallel.device)
    if parallel.is_output_rank:
        _spread(values, rows, starts, results)
    # Each entry is set on one rank at most, so the sum gathers them.
    distributed.all_reduce(values)
    logprobs, predictions = (np.split(line, starts[1:-1]) for line in values.cpu().numpy())
    return logprobs, predictions


def logprobs_before(
    chunks: Sequence[Any],
    rows: Sequence[Row],
    planned: Pass,
    parallel: ParallelState,
    *,
    several_updates: bool,
    reference: Reference | None,
) -> LossInputs:
    """The log-probabilities that the loss compares with, taken before a step's first update.

    Args:
        several_updates: the step makes more than one update. A single one starts from the old
            policy, so its own log-probabilities are the old ones and need no pass.
        reference: the reference policy, or None.
    """
    policies: dict[str, AbstractContextManager[None]] = {}
    if several_updates:
        policies["old"] = nullcontext()
    if reference is not None:
        policies["reference"] = reference.in_place()
    logprobs = {}
    for name, in_place in policies.items():
        with in_place:
            logprobs[name], _ = score(chunks, rows, planned, parallel)
    return LossInputs(**logprobs)


def _keep_scores(batch: Batch, scores: Scores) -> tuple[Tensor, tuple[Batch, Tensor, Tensor]]:
    """Nothing to minimise; keeps the micro-batch with its log-probabilities and logits."""
    nothing = torch.zeros((), device=scores.logprob.device)
    return nothing, (batch, scores.logprob, scores.prediction)


def _spread(
    values: Tensor,
    rows: Sequence[Row],
    starts: NDArray[np.int64],
    results: Iterable[tuple[Batch, Tensor, Tensor]],
) -> None:
    """Write micro-batches' scores to `values`, [2, tokens of all rows end to end].

    Args:
        starts: where each row begins among the tokens of all rows.
    """
    for batch, logprob, prediction in results:
        # A micro-batch lists its learned tokens and its anchors row after row.
        nowhere = np.zeros(0, dtype=np.int64)
        learned = [starts[index] + np.flatnonzero(rows[index].learn) for index in batch.rows]
        anchors = [starts[index] + np.flatnonzero(rows[index].predict) for index in batch.rows]
        values[0, np.concatenate([nowhere, *learned])] = logprob
        values[1, np.concatenate([nowhere, *anchors])] = torch.sigmoid(prediction)
