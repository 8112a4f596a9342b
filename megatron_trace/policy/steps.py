"""Forward and backward passes over micro-batches through Megatron's pipeline schedule."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_trace.config import LossConfig
from megatron_trace.learning.batches import Batch
from megatron_trace.learning.diagnostics import predictor_sums
from megatron_trace.learning.objective import Sums, objective
from megatron_trace.policy.model import Scores

LossFunction = Callable[[Batch, Scores], tuple[Tensor, Any]]


def run_schedule(
    chunks: Sequence[Any], batches: Sequence[Batch], loss: LossFunction, *, forward_only: bool
) -> list[Any]:
    """Run `batches` through all pipeline stages and, unless `forward_only`, the gradients back.

    Args:
        chunks: this rank's parts of the model in their data-parallel wrappers.
        batches: this data-parallel rank's micro-batches; every rank has equally many.
        loss: gives the scalar to minimise, which is summed over micro-batches and data-parallel ranks as it is,
            and something to hand back.

    Returns:
        for each micro-batch what `loss` handed back; on the last stage only, elsewhere nothing.
    """

    def forward_step(iterator: Iterator[Batch], stage: Any) -> tuple[Any, Callable]:
        batch = next(iterator)
        return stage(batch), partial(finish, batch)

    def finish(batch: Batch, scores: Scores) -> tuple[Tensor, Tensor, Any]:
        total, result = loss(batch, scores)
        # No tokens reported: Megatron then leaves the sum undivided.
        return total, torch.zeros((), dtype=torch.int, device=total.device), result

    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=[iter(batches) for _ in chunks] if len(chunks) > 1 else iter(batches),
        model=list(chunks) if len(chunks) > 1 else chunks[0],
        num_microbatches=len(batches),
        seq_length=batches[0].tokens.shape[
            1
        ],  # of interest to pipelines alone, where all are equal
        micro_batch_size=1,
        forward_only=forward_only,
    )


def learn(
    settings: LossConfig, batch: Batch, scores: Scores
) -> tuple[Tensor, tuple[Sums, Batch, Tensor]]:
    """This micro-batch's share of the update's loss, and its sums for the metrics (see `objective`, `predictor_sums`),
    the batch itself and the hidden states at its anchors."""
    loss, sums = objective(settings, batch.data, scores.logprob, scores.entropy)
    return loss, (sums | predictor_sums(scores.prediction, batch.data.target), batch, scores.hidden)


def keep_scores(batch: Batch, scores: Scores) -> tuple[Tensor, tuple[Batch, Tensor, Tensor]]:
    """For forward passes: nothing to minimise, and the batch with its log-probabilities and logits."""
    return torch.zeros((), device=scores.logprob.device), (batch, scores.logprob, scores.prediction)
