"""One training step of the policy: the planned passes, optimizer updates, the predictor, diagnostics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from megatron_trace.config import Config, LossConfig
from megatron_trace.learning.anchors import states_in_order, targets
from megatron_trace.learning.batches import Batch, LossInputs
from megatron_trace.learning.diagnostics import predictor_sums, step_metrics
from megatron_trace.learning.objective import Sums, objective
from megatron_trace.learning.rows import Row
from megatron_trace.learning.schedule import learning_rate_factor
from megatron_trace.learning.step_plan import Layout, StepPlan, Update, plan_step
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.model import Scores
from megatron_trace.policy.optimizer import Optimizer
from megatron_trace.policy.reference import Reference
from megatron_trace.policy.schedule import run_pass
from megatron_trace.policy.scoring import score


@dataclass(frozen=True)
class Learned:
    """What a micro-batch leaves behind when the policy has learned from it.

    Attributes:
        sums: for the metrics, scalars.
        batch: the micro-batch.
        hidden: the final hidden states at its anchors, [m, hidden].
    """

    sums: Sums
    batch: Batch
    hidden: Tensor


@dataclass
class TrainStep:
    """Takes training steps with one train rank's part of the policy. Collective over all train ranks.

    Attributes:
        chunks: this rank's parts of the model in their data-parallel wrappers.
        reference: the reference policy, where the loss has a KL to it.
    """

    config: Config
    parallel: ParallelState
    layout: Layout
    chunks: Sequence[Any]
    optimizer: Optimizer
    reference: Reference | None

    def train_on(self, rows: Sequence[Row]) -> dict[str, float]:
        """Take one step: the policy's updates, then the predictor's.

        Returns:
            metrics, see `Policy.update`.
        """
        settings = self.config.learning
        generator = np.random.default_rng([self.config.run.seed, self.optimizer.updates])
        plan = plan_step(rows, settings.batching, settings.loss, self.layout, generator)
        known = self._logprobs_before(rows, plan)
        norms, sums = [], []
        for updates in plan.epochs:
            # Those of the last epoch are kept: the predictor learns from the newest hidden states.
            learned: list[Learned] = []
            for update in updates:
                results = self._gradients(rows, update, known)
                norms.append(self.optimizer.step())
                sums.append(sum_over_ranks(results, self.parallel))
                learned += results
        self._teach_predictor(rows, learned)
        self.optimizer.gather_weights()
        return step_metrics(rows, sums, settings.batching.epochs) | {"gradient_norm": max(norms)}

    def _logprobs_before(self, rows: Sequence[Row], plan: StepPlan) -> LossInputs:
        """The log-probabilities under the trainer before the step, and under the reference policy."""
        batching = self.config.learning.batching
        old = reference = None
        # A single update starts from the old policy, so its own log-probabilities are the old ones and
        # no pass is needed for them.
        if batching.updates_per_step * batching.epochs > 1:
            old, _ = score(self.chunks, rows, plan.scoring, self.parallel)
        if self.reference is not None:
            with self.reference.in_place():
                reference, _ = score(self.chunks, rows, plan.scoring, self.parallel)
        return LossInputs(old=old, reference=reference)

    def _gradients(self, rows: Sequence[Row], update: Update, known: LossInputs) -> list[Learned]:
        """Run the passes of an update; the gradients stay in Megatron's buffers."""
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        inputs = replace(known, weights=update.weights)
        loss = partial(learn, self.config.learning.loss)
        results = []
        for planned in update.passes:
            results += run_pass(self.chunks, rows, planned, inputs, loss, self.parallel.device)
        return results

    def _teach_predictor(self, rows: Sequence[Row], learned: Sequence[Learned]) -> None:
        predictor = self.optimizer.predictor
        if predictor is None:
            return
        # All tensor- and context-parallel ranks have the same states; one of them gives them.
        own = learned if self.parallel.is_output_rank else []
        seen = ((result.batch, result.hidden) for result in own)
        width = self.chunks[-1].config.hidden_size
        hidden = states_in_order(rows, seen, width, self.parallel.device)
        target = targets(rows).to(self.parallel.device)
        updates = self.optimizer.updates
        generator = np.random.default_rng([*b"predictor", self.config.run.seed, updates])
        factor = learning_rate_factor(updates - 1, self.config.learning.optimizer)
        predictor.learn(hidden, target, generator, factor)


def learn(settings: LossConfig, batch: Batch, scores: Scores) -> tuple[Tensor, Learned]:
    """This micro-batch's share of the update's loss, and what is kept of it."""
    loss, sums = objective(settings, batch.data, scores.logprob, scores.entropy)
    sums |= predictor_sums(scores.prediction, batch.data.target)
    return loss, Learned(sums, batch, scores.hidden)


def sum_over_ranks(results: Sequence[Learned], parallel: ParallelState) -> dict[str, float]:
    """Totals of the sums over micro-batches and data-parallel ranks, the same on every rank.

    Returns:
        the sums of `Learned`, and computed: tokens that the model computed, padding included.
    """
    own = None
    if parallel.is_output_rank:
        names = sorted(results[0].sums)
        # One transfer to the host for all sums of all micro-batches.
        table = torch.stack(
            [torch.stack([result.sums[name] for name in names]) for result in results]
        )
        own = dict(zip(names, table.double().sum(0).tolist(), strict=True))
        own["computed"] = sum(result.batch.tokens.numel() for result in results)
    everyone: list[dict[str, float] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, own)
    reported = [sums for sums in everyone if sums is not None]
    return {name: sum(sums[name] for sums in reported) for name in reported[0]}
