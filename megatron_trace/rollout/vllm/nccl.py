"""Weights from GPU to GPU, by vLLM's own NCCL backend.

Rank 0 of training is the sender. It forms a group with all ranks of all engines, broadcasts every
tensor in it, and drives the engines' half of the handshake through their Ray actors. The other
train ranks only take part in gathering a tensor, as `PolicyWeights.weights` makes them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_ip, get_open_port

from megatron_trace.rollout.actors import call, results
from megatron_trace.rollout.engine import EngineDied
from megatron_trace.rollout.fingerprint import MODULUS, fingerprint
from megatron_trace.rollout.weight_sync import PolicyWeights
from megatron_trace.rollout.worker import Worker


class NCCLSender:
    """The group of rank 0 and of some workers' engines; a `rollout.weight_sync.Sender`.

    A worker that dies in the middle of a broadcast would leave rank 0 waiting: NCCL has no timeout
    there. So the group is aborted, and what is left of the broadcast sends nothing.
    """

    def __init__(
        self, tensor_parallel: int, workers: Sequence[ActorHandle], weights: PolicyWeights
    ) -> None:
        """Build the group; the engines, of `tensor_parallel` ranks each, join it meanwhile."""
        self._source = GatheredWeights(weights)
        info = NCCLTrainerInitInfo(
            master_address=get_ip(),
            master_port=get_open_port(),
            world_size=1 + len(workers) * tensor_parallel,
            rank=0,
        )
        client = FleetClient(workers, tensor_parallel, self.close)
        self._engine = WeightTransferTrainerFactory.trainer_init(
            info, client=client, source=self._source
        )

    def send(self) -> int:
        """Broadcast all weights to engines that are ready to receive. Returns their fingerprint."""
        # vLLM packs the tensors on streams that wait for no other: what writes weights must be done.
        torch.cuda.current_stream().synchronize()
        self._engine.send_weights()
        return self._source.fingerprint

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()


class GatheredWeights(WeightSource):
    """The policy's weights, gathered at every pass; keeps the fingerprint of the last pass."""

    def __init__(self, weights: PolicyWeights) -> None:
        """Nothing is gathered yet."""
        self._weights = weights
        self._metadata = [
            ParamMeta(name, dtype, tuple(shape)) for name, dtype, shape in weights.weight_metadata()
        ]
        self.fingerprint = 0

    def metadata(self) -> list[ParamMeta]:
        """What iteration yields, without gathering."""
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Gather; collective over the train ranks."""
        # Taken while the tensors pass, so that no second gathering is needed to check the engines.
        self.fingerprint = 0
        for name, tensor in self._weights.weights():
            # vLLM packs on two streams in turn. A block that is gathered on one may be packed on the
            # other, and its memory must not be used again before that is done.
            tensor.record_stream(torch.cuda.current_stream())
            # This waits for the values, so that they may be read on any stream afterwards.
            self.fingerprint = (self.fingerprint + fingerprint(name, tensor)) % MODULUS
            yield name, tensor


class FleetClient:
    """vLLM's `VLLMWeightSyncClient` for several engines."""

    def __init__(
        self, workers: Sequence[ActorHandle], tensor_parallel: int, abort: Callable[[], None]
    ) -> None:
        """For actors of `Worker`.

        Args:
            workers: the actors.
            tensor_parallel: ranks of each of their engines.
            abort: ends a broadcast under way; called in another thread than the broadcast's.
        """
        self._workers = workers
        self._abort = abort
        self._tensor_parallel = tensor_parallel

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Let every engine join the group: its ranks come after those of the engine before."""
        # All are called before any is waited for: the group forms when the last one has joined.
        joins = []
        for number, worker in enumerate(self._workers):
            offset = init_info["rank_offset"] + number * self._tensor_parallel
            joins.append(call(worker, Worker.join_trainer, {**init_info, "rank_offset": offset}))
        results(joins)

    def start_weight_update(self) -> None:
        """Nothing: `BroadcastSync.bring` has made the layers ready, where a death is survived."""

    def update_weights(self, update_info: Any) -> None:
        """Receive; runs in another thread while the trainer broadcasts.

        Raises:
            RayActorError: a worker died, and the broadcast is aborted.
            EngineDied: likewise, a worker's engine.
        """
        try:
            results(call(worker, Worker.receive, update_info) for worker in self._workers)
        except (RayActorError, EngineDied):
            self._abort()
            raise

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish loading. The version comes later, with `Worker.finish_version`."""
        results(call(worker, Worker.finish_receiving) for worker in self._workers)
