"""Learning of the predictor from a step's hidden states: several passes over its anchors.

The updates of the head do not change the hidden states below it, so they cost no forward pass
through the policy. The head that predicts is an exponential average over the heads of the last
steps. One step has a few dozen tasks, and a head that has just learned them by heart predicts the
next ones less well.
"""

from typing import Any

import numpy as np
import torch
from megatron.core.dist_checkpointing import ShardedTensor
from torch import Tensor, distributed

from megatron_trace.config import PredictorConfig
from megatron_trace.learning.losses import predictor_loss
from megatron_trace.models.predictor import PredictorHead

MOMENTS = ("exp_avg", "exp_avg_sq")
KEY = "optimizer.predictor"


class PredictorOptimizer:
    """AdamW on a float32 copy of the head, the learner; the head is its moving average.

    All ranks of the last pipeline stage hold the head. The first of them learns and sends the head
    to the others. So the heads are the same to the last bit, and no update waits for a collective.
    """

    def __init__(self, head: PredictorHead, settings: PredictorConfig, group: Any) -> None:
        """For the `head` of this rank, which Megatron's wrapper and optimizer leave out.

        Args:
            group: the ranks of the last stage.
        """
        self._head, self._settings, self._group = head, settings, group
        self._learner = PredictorHead(head.fc1.in_features, head.fc1.out_features, seed=0)
        self._learner.to(head.fc1.weight.device).load_state_dict(head.state_dict())
        self._parameters = dict(self._learner.named_parameters())
        self._adam = torch.optim.AdamW(self._learner.parameters(), weight_decay=0.0)
        self._steps = 0
        # torch would make the moments at the first step, but a checkpoint may be loaded before it.
        for parameter in self._learner.parameters():
            self._adam.state[parameter] = {
                "step": torch.zeros(()),
                **{name: torch.zeros_like(parameter) for name in MOMENTS},
            }

    def learn(
        self, hidden: Tensor, target: Tensor, generator: np.random.Generator, factor: float
    ) -> None:
        """`learning.predictor.epochs` passes over m anchors. Collective over the last stage.

        Each update takes the gradient of the mean of (σ(logit) − target)² over a mini-batch of at
        most `learning.predictor.batch`. Then θ ← a·θ + (1 − a)·θ', the head's weights by the
        learner's, with a = `learning.predictor.average`.

        Args:
            hidden: final hidden states, float32 [m, hidden]; each row on one rank of the stage and
                0 on all others.
            target: [m], on every rank.
            generator: orders the anchors, the same whatever the layout.
            factor: of the learning rate.
        """
        # All ranks know the targets, so all of them return here, and none waits in the reduction.
        if not len(target):
            return
        distributed.reduce(hidden, group=self._group, group_dst=0)
        if self._group.rank() == 0:
            for group in self._adam.param_groups:
                group["lr"] = factor * self._settings.learning_rate
            batches = -(-len(target) // self._settings.batch)
            for _ in range(self._settings.epochs):
                order = torch.from_numpy(generator.permutation(len(target))).to(hidden.device)
                for picked in order.tensor_split(batches):
                    self._update(hidden[picked], target[picked])
            self._average()
        for parameter in self._head.parameters():
            distributed.broadcast(parameter.data, group=self._group, group_src=0)

    def _update(self, hidden: Tensor, target: Tensor) -> None:
        self._adam.zero_grad()
        (predictor_loss(self._learner(hidden), target) / len(target)).backward()
        self._adam.step()
        self._steps += 1

    @torch.no_grad()
    def _average(self) -> None:
        pairs = zip(self._head.parameters(), self._learner.parameters(), strict=True)
        for parameter, learned in pairs:
            parameter.lerp_(learned, 1.0 - self._settings.average)

    def sharded_state(self) -> dict[str, Any]:
        """Learner and moments in a checkpoint: whole tensors, written by the rank that learns."""
        tensors = {"step": torch.tensor([self._steps])}
        for name, parameter in self._parameters.items():
            tensors[f"weight.{name}"] = parameter.detach()
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = self._adam.state[parameter][moment]
        return {
            name: ShardedTensor.from_rank_offsets(
                f"{KEY}.{name}", tensor, replica_id=self._group.rank()
            )
            for name, tensor in tensors.items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what a checkpoint filled in."""
        self._steps = int(state["step"])
        for name, parameter in self._parameters.items():
            own = self._adam.state[parameter]
            own["step"].fill_(self._steps)
            parameter.detach().copy_(state[f"weight.{name}"])
            for moment in MOMENTS:
                own[moment].copy_(state[f"{moment}.{name}"])
