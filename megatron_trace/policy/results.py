"""What is kept of each micro-batch that the policy learns from, and totals over all ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from megatron_trace.config import LossConfig
from megatron_trace.learning.batches import Batch
from megatron_trace.learning.diagnostics import predictor_sums
from megatron_trace.learning.objective import Sums, objective
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.model import Scores


@dataclass(frozen=True)
class Result:
    """Of one micro-batch.

    Attributes:
        sums: for the metrics, scalars.
        batch: the micro-batch.
        hidden: the final hidden states at its anchors, [m, hidden].
    """

    sums: Sums
    batch: Batch
    hidden: Tensor


def loss_and_result(settings: LossConfig, batch: Batch, scores: Scores) -> tuple[Tensor, Result]:
    """A micro-batch's share of the update's loss, and what is kept of the micro-batch."""
    loss, sums = objective(settings, batch.data, scores.logprob, scores.entropy)
    sums |= predictor_sums(scores.prediction, batch.data.target)
    return loss, Result(sums, batch, scores.hidden)


def sum_over_ranks(results: Sequence[Result], parallel: ParallelState) -> dict[str, float]:
    """Totals of `Result.sums` over micro-batches and data-parallel ranks, the same on every rank.

    Returns:
        the sums, and the tokens that the model computed: computed with padding, filled without.
    """
    own = None
    if parallel.is_output_rank:
        names = sorted(results[0].sums)
        # One transfer to the host for all sums of all micro-batches.
        rows = [torch.stack([result.sums[name] for name in names]) for result in results]
        totals = torch.stack(rows).double().sum(0).tolist()
        own = dict(zip(names, totals, strict=True))
        own["computed"] = sum(result.batch.tokens.numel() for result in results)
        own["filled"] = sum(result.batch.filled for result in results)
    everyone: list[dict[str, float] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    reported = [sums for sums in everyone if sums is not None]
    return {name: sum(sums[name] for sums in reported) for name in reported[0]}
