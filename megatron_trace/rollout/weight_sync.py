"""How the workers get the policy's weights: one owner for new versions and for restarted workers.

`object_store.py` and `broadcast.py` are the two ways; `backends.py` chooses one.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from ray.actor import ActorHandle

from megatron_trace.rollout.actors import Reference


class PolicyWeights(Protocol):
    """The policy's weights in HF names, as the train ranks hold them now."""

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All full tensors, `predictor.*` and, tied or not, `lm_head.weight` included.

        Whoever starts the iterator must use it up: gathering is collective over the train ranks.
        """
        ...

    def weight_metadata(self) -> Sequence[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, dtype and shape of what `weights` yields, in the same order; nothing is gathered."""
        ...


class WeightSync(Protocol):
    """Brings workers to the version that was published last.

    The pool calls `bring` for all workers after `publish`, and for a restarted worker before its
    first job. The policy does not change between `publish` and the end of the step's sampling, so a
    restarted worker may be sent the policy's weights as they are then.
    """

    def publish(self, weights: PolicyWeights, version: int) -> None:
        """Make `version` the current one, with the policy's weights as they are now."""
        ...

    def bring(self, workers: Sequence[ActorHandle]) -> Sequence[Reference[Any]]:
        """Start to bring idle `workers` to the current version.

        Returns:
            One reference for each worker. It is there when the worker samples as the version, and
            raises RuntimeError if the worker holds other weights than were sent.

        Raises:
            RayActorError: a worker has died, and nothing was sent yet. Call it again without that
                worker.
            EngineDied: likewise, a worker's engine.
        """
        ...
