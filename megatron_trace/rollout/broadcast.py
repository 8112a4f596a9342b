"""Weights by broadcasts from the trainer's GPUs to the engines'."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from megatron_trace.rollout.actors import Reference, call, settled
from megatron_trace.rollout.engine import EngineDied
from megatron_trace.rollout.weight_sync import PolicyWeights
from megatron_trace.rollout.worker import Worker


class Sender(Protocol):
    """A process group of rank 0 and of the engines of some workers, for broadcasts."""

    def send(self) -> int:
        """Broadcast all weights as they are now to engines that are ready to receive.

        Returns:
            Their fingerprint.
        """
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


JoinWorkers = Callable[[Sequence[ActorHandle], PolicyWeights], Sender]
"""Builds the group of rank 0 and of these workers' engines."""


class BroadcastSync:
    """A `WeightSync` in which nothing is kept: a restarted worker gets a separate broadcast.

    A worker that dies before the broadcast costs a restart. One that dies in it ends the run, as
    the other engines wait in it for ever.
    """

    def __init__(self, join: JoinWorkers) -> None:
        """Nothing is joined before the first `bring`."""
        self._join = join
        self._weights: PolicyWeights | None = None
        self._version = 0
        self._workers: list[ActorHandle] = []
        self._sender: Sender | None = None
        self._left: list[Sender] = []

    def publish(self, weights: PolicyWeights, version: int) -> None:
        """Remember where the weights come from; `bring` gathers them."""
        self._weights, self._version = weights, version
        # Now all engines are idle. While some sample, a group they belong to must not be torn down.
        for sender in self._left:
            sender.close()
        self._left.clear()

    def bring(self, workers: Sequence[ActorHandle]) -> Sequence[Reference[Any]]:
        """Broadcast to `workers`; returns when they have everything.

        Raises:
            RuntimeError: a worker died in the middle.
        """
        assert self._weights is not None, "nothing was published"
        if not workers:
            return []
        # An engine listens to the group that it joined last, and to no other; the sender would wait
        # for the others without end. So a group is used as long as the same workers come together,
        # and a new one is built after one of them was brought alone.
        if self._sender is None or self._workers != list(workers):
            if self._sender is not None:
                self._left.append(self._sender)
                self._sender = None
            self._sender = self._join(workers, self._weights)
            self._workers = list(workers)
        settled(call(worker, Worker.start_receiving) for worker in workers)
        try:
            sent = self._sender.send()
        except (RayActorError, EngineDied) as error:
            text = "a worker died while weights were broadcast; the other engines wait for it"
            raise RuntimeError(text) from error
        return [call(worker, Worker.finish_version, self._version, sent) for worker in workers]
