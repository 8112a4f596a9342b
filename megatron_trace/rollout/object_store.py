"""Weights through Ray's object store, for engines on any device."""

from collections.abc import Sequence
from typing import Any

import torch
from ray.actor import ActorHandle

from megatron_trace.rollout.actors import Reference, call
from megatron_trace.rollout.weight_sync import PolicyWeights
from megatron_trace.rollout.weights import WeightUpdate, put_weights
from megatron_trace.rollout.worker import Worker


class ObjectStoreSync:
    """A `WeightSync` that keeps the current version, for workers that are restarted.

    The driver sends every tensor once. Workers on one machine share the memory it then lies in.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype` is that of the engines' weights."""
        self._dtype = dtype
        self._update: WeightUpdate | None = None

    def publish(self, weights: PolicyWeights, version: int) -> None:
        """Put the tensors into the store."""
        self._update = put_weights(weights.weights(), version, self._dtype)

    def bring(self, workers: Sequence[ActorHandle]) -> Sequence[Reference[Any]]:
        """Let every worker load them from the store."""
        assert self._update is not None, "nothing was published"
        return [call(worker, Worker.load_update, self._update) for worker in workers]
