"""One training step of the policy: planned passes, optimizer updates, predictor, metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from megatron_trace.config import Config
from megatron_trace.learning.anchors import roots, states_in_order, targets
from megatron_trace.learning.diagnostics import step_metrics
from megatron_trace.learning.packing import Layout
from megatron_trace.learning.rows import Row
from megatron_trace.learning.step_plan import plan_step
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
        loss_function = partial(loss_and_result, loss)
        norms, sums = [], []
        for updates in plan.epochs:
            # Only those of the last epoch are kept: the predictor learns from the newest hidden
            # states.
            newest: list[Result] = []
            for update in updates:
                self._zero_gradients()
                inputs = replace(known, weights=update.weights)
                results = []
                for planned in update.passes:
                    results += run_pass(
                        self.chunks, rows, planned, inputs, loss_function, self.parallel.device
                    )
                norms.append(self.optimizer.step())
                sums.append(sum_over_ranks(results, self.parallel))
                newest += results
        self._teach_predictor(rows, newest)
        self.optimizer.gather_weights()
        return step_metrics(rows, sums, batching.epochs) | {"gradient_norm": max(norms)}

    def _zero_gradients(self) -> None:
        # Megatron's wrapper sums gradients in separate buffers, so both have to be reset.
        for chunk in self.chunks:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()

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
