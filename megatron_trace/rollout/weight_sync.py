"""How the workers get the policy's weights: one owner for new versions and for restarted workers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from ray.actor import ActorHandle

from megatron_trace.rollout.actors import Reference, call
from megatron_trace.rollout.weights import WeightUpdate, put_weights
from megatron_trace.rollout.worker import Worker


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
        """
        ...


class ObjectStoreSync:
    """Through Ray's object store, where the current version stays for workers that are restarted."""

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype` is that of the fleet's weights."""
        self._dtype = dtype
        self._update: WeightUpdate | None = None

    def publish(self, weights: PolicyWeights, version: int) -> None:
        """Put the tensors into the store."""
        self._update = put_weights(weights.weights(), version, self._dtype)

    def bring(self, workers: Sequence[ActorHandle]) -> Sequence[Reference[Any]]:
        """Every worker loads them by itself."""
        assert self._update is not None, "nothing was published"
        return [call(worker, Worker.load_update, self._update) for worker in workers]


class Sender(Protocol):
    """A process group of rank 0 and of the engines of some workers, for broadcasts."""

    def send(self) -> int:
        """Broadcast all weights as they are now. Returns their fingerprint."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


JoinWorkers = Callable[[Sequence[ActorHandle], PolicyWeights], Sender]
"""Builds the group of rank 0 and of these workers' engines."""


class BroadcastSync:
    """From the trainer's GPUs to the engines'. A restarted worker gets a broadcast of its own."""

    def __init__(self, join: JoinWorkers) -> None:
        """Nothing is joined before the first `bring`."""
        self._join = join
        self._weights: PolicyWeights | None = None
        self._version = 0
        self._workers: list[ActorHandle] = []
        self._sender: Sender | None = None

    def publish(self, weights: PolicyWeights, version: int) -> None:
        """Remember where the weights come from; `bring` gathers them."""
        self._weights, self._version = weights, version

    def bring(self, workers: Sequence[ActorHandle]) -> Sequence[Reference[Any]]:
        """Broadcast to `workers`; returns when they have everything."""
        assert self._weights is not None, "nothing was published"
        if not workers:
            return []
        # An engine listens to the group that it joined last, and to no other. So a group serves as
        # long as the same workers come together, and is built again after one of them was alone.
        if self._sender is None or self._workers != list(workers):
            if self._sender is not None:
                self._sender.close()
            self._sender = self._join(workers, self._weights)
            self._workers = list(workers)
        sent = self._sender.send()
        return [call(worker, Worker.finish_version, self._version, sent) for worker in workers]
