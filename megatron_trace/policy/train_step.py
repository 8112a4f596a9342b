"""One training step of the policy: planned passes, optimizer updates, predictor, metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from megatron_trace.config import Config
from megatron_trace.learning.anchors import roots, states_in_order, targets
from megatron_trace.learning.batches import LossInputs
from megatron_trace.learning.diagnostics import step_metrics
from megatron_trace.learning.packing import Layout
from megatron_trace.learning.rows import Row
from megatron_trace.learning.step_plan import StepPlan, Update, plan_step
from megatron_trace.policy.distributed import ParallelState
from megatron_trace.policy.optimizer import Optimizer
from megatron_trace.policy.reference import Reference
from megatron_trace.policy.results import Result, loss_and_result, sum_over_ranks
from megatron_trace.policy.schedule import run_pass
from megatron_trace.policy.scoring import logprobs_before


@dataclass
class TrainStep:
    """Takes training steps with one train rank's part of the policy. Collective.

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
        plan, known = self._plan(rows)
        norms, sums = [], []
        for updates in plan.epochs:
            # Only those of the last epoch are kept: the predictor learns from the newest hidden
            # states.
            newest: list[Result] = []
            for update in updates:
                results = self._compute_gradient(rows, update, known)
                norms.append(self.optimizer.step())
                sums.append(sum_over_ranks(results, self.parallel))
                newest += results
        self._teach_predictor(rows, newest)
        self.optimizer.gather_weights()
        epochs = self.config.learning.batching.epochs
        return step_metrics(rows, sums, epochs) | {"gradient_norm": max(norms)}

    def gradient(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """The gradient of the policy's loss that the step's one update would take, before clipping.

        Nothing is learned. With `parallel` above 1 it is this rank's part.

        Returns:
            [parameters].

        Raises:
            ValueError: a step makes several updates.
        """
        plan, known = self._plan(rows)
        updates = [update for epoch in plan.epochs for update in epoch]
        if len(updates) > 1:
            raise ValueError(f"one gradient is asked for, and a step makes {len(updates)} updates")
        self._compute_gradient(rows, updates[0], known)
        weights = [weight for chunk in self.chunks for weight in chunk.parameters()]
        parts = [weight.main_grad.flatten() for weight in weights if weight.requires_grad]
        return torch.cat(parts).float().cpu().numpy()

    def _plan(self, rows: Sequence[Row]) -> tuple[StepPlan, LossInputs]:
        """The step's plan, and the log-probabilities that its loss compares with."""
        batching, loss = self.config.learning.batching, self.config.learning.loss
        generator = np.random.default_rng([self.config.run.seed, self.optimizer.updates])
        plan = plan_step(rows, batching, loss, self.layout, generator)
        known = logprobs_before(
            self.chunks,
            rows,
            plan.scoring,
            self.parallel,
            several_updates=batching.updates_per_step * batching.epochs > 1,
            reference=self.reference,
        )
        return plan, known

    def _compute_gradient(
        self, rows: Sequence[Row], update: Update, known: LossInputs
    ) -> list[Result]:
        """Leave the update's gradient in Megatron's buffers."""
        # Megatron's wrapper sums gradients in separate buffers, so both have to be reset.
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        inputs = replace(known, weights=update.weights)
        loss = partial(loss_and_result, self.config.learning.loss)
        results: list[Result] = []
        for planned in update.passes:
            results += run_pass(self.chunks, rows, planned, inputs, loss, self.parallel.device)
        return results

    def _teach_predictor(self, rows: Sequence[Row], results: Sequence[Result]) -> None:
        predictor = self.optimizer.predictor
        if predictor is None:
            return
        # All tensor- and context-parallel ranks have the same states; one of them gives them.
        own = results if self.parallel.is_output_rank else []
        seen = [(result.batch, result.hidden) for result in own]
        width = self.chunks[-1].config.hidden_size
        hidden = states_in_order(rows, seen, width, self.parallel.device)
        device, rollouts = self.parallel.device, len({row.rollout for row in rows})
        predictor.learn(hidden, targets(rows).to(device), roots(rows).to(device), rollouts)
