"""Learning of the predictor from a step's hidden states, and what a checkpoint keeps of it.

What the head learns does not change the hidden states below it, so it costs no forward pass
through the policy. `learning/read_out.py` has the formulas.
"""

from typing import Any

import torch
from megatron.core.dist_checkpointing import ShardedTensor
from torch import Tensor, distributed

from megatron_trace.config import PredictorConfig
from megatron_trace.learning.read_out import ReadOut, balanced, learned, unknown
from megatron_trace.models.predictor import PredictorHead

KEY = "optimizer.predictor"


class PredictorLearner:
    """What is known of the head's weights; the head has their mean.

    All ranks of the last pipeline stage hold the head. The first of them learns and sends the head
    to the others. So the heads are the same to the last bit.
    """

    def __init__(self, head: PredictorHead, settings: PredictorConfig, group: Any) -> None:
        """For the `head` of this rank, which Megatron's wrapper and optimizer leave out.

        Args:
            group: the ranks of the last stage.
        """
        self._head, self._settings, self._group = head, settings, group
        self._known = unknown(head.weight, head.bias) if group.rank() == 0 else None

    def learn(self, hidden: Tensor, target: Tensor, root: Tensor, rollouts: int) -> None:
        """Learn from the m anchors of a step. Collective over the last stage.

        Args:
            hidden: final hidden states, float32 [m, hidden]; each row on one rank of the stage and
                0 on all others.
            target: backed-up success, [m], on every rank.
            root: which anchors are roots, [m], on every rank.
            rollouts: of the step.

        Raises:
            FloatingPointError: on every rank; a hidden state is not finite.
        """
        # All ranks know the targets, so all of them return here, and none waits in the reduction.
        if not len(target):
            return
        distributed.reduce(hidden, group=self._group, group_dst=0)
        if self._known is not None:
            # The others wait below for the head, and learn from it that this failed.
            mean = torch.full_like(self._known.mean, torch.nan)
            if hidden.isfinite().all():
                count = balanced(root, rollouts)
                self._known = learned(self._known, hidden, target, count, self._settings)
                mean = self._known.mean
            with torch.no_grad():
                self._head.weight.copy_(mean[None, :-1])
                self._head.bias.copy_(mean[-1:])
        for parameter in self._head.parameters():
            distributed.broadcast(parameter.data, group=self._group, group_src=0)
        if not self._head.weight.isfinite().all():
            raise FloatingPointError(
                "the policy's final hidden states hold numbers that are not finite"
            )

    @property
    def nbytes(self) -> int:
        """Bytes of what this rank keeps between steps."""
        return sum(tensor.nbytes for tensor in self._known or ())

    def sharded_state(self) -> dict[str, Any]:
        """What is known, in a checkpoint: whole tensors of the rank that learns."""
        if self._known is None:
            return {}
        return {
            name: ShardedTensor.from_rank_offsets(f"{KEY}.{name}", tensor)
            for name, tensor in self._known._asdict().items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what a checkpoint filled in."""
        if self._known is not None:
            self._known = ReadOut(**state)
