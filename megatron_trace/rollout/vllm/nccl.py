"""Weights from GPU to GPU, by vLLM's own NCCL backend: the train ranks' side.

Every train rank builds a `NCCLSender` and calls `send` for every version; gathering a full tensor is collective, so
all must. Rank 0 broadcasts to all engines and drives their half of the handshake through their Ray actors.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory
from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo
from vllm.utils.network_utils import get_ip, get_open_port

from megatron_trace.rollout.actors import call, results
from megatron_trace.rollout.weights import MODULUS, fingerprint
from megatron_trace.rollout.worker import Worker

Metadata = Sequence[tuple[str, torch.dtype, tuple[int, ...]]]


class MegatronWeightSource(WeightSource):
    """The policy's weights in HF names, gathered anew at every pass; keeps the fingerprint of the last pass."""

    def __init__(
        self, metadata: Metadata, weights: Callable[[], Iterator[tuple[str, torch.Tensor]]]
    ) -> None:
        """`metadata` lists what `weights()` yields: name, dtype and shape, in the same order."""
        self._metadata = [ParamMeta(name, dtype, tuple(shape)) for name, dtype, shape in metadata]
        self._weights = weights
        self.fingerprint = 0

    def metadata(self) -> list[ParamMeta]:
        """What iteration yields, without gathering."""
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Gather; collective over the train ranks."""
        self.fingerprint = 0
        for name, tensor in self._weights():
            self.fingerprint = (self.fingerprint + fingerprint(name, tensor)) % MODULUS
            yield name, tensor


class FleetClient:
    """vLLM's `VLLMWeightSyncClient` for several engines: each one's ranks come after those of the one before."""

    def __init__(self, workers: Sequence[Any], tensor_parallel: int) -> None:
        """`workers` are handles of `Worker` actors whose engines have `tensor_parallel` ranks each."""
        self._workers = workers
        self._tensor_parallel = tensor_parallel

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Let every engine join the trainer's group."""
        offsets = [
            init_info["rank_offset"] + n * self._tensor_parallel for n in range(len(self._workers))
        ]
        infos = [{**init_info, "rank_offset": offset} for offset in offsets]
        results(
            call(worker, Worker.join_trainer, info)
            for worker, info in zip(self._workers, infos, strict=True)
        )

    def start_weight_update(self) -> None:
        """Make the layers ready to be loaded anew."""
        results(call(worker, Worker.start_receiving) for worker in self._workers)

    def update_weights(self, update_info: Any) -> None:
        """Receive; runs while the trainer broadcasts."""
        results(call(worker, Worker.receive, update_info) for worker in self._workers)

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Finish loading; the version is set by `NCCLSender.send`, which knows it."""
        results(call(worker, Worker.finish_receiving) for worker in self._workers)


class NCCLSender:
    """Sends versions to the engines of `workers`. Build a new one after a worker was restarted."""

    def __init__(
        self, workers: Sequence[Any], tensor_parallel: int, source: MegatronWeightSource, rank: int
    ) -> None:
        """Join the engines; every train rank calls it, with its global `rank`."""
        self._workers, self._source, self._rank = workers, source, rank
        info = NCCLTrainerInitInfo(
            master_address=get_ip(),
            master_port=get_open_port(),
            world_size=1 + len(workers) * tensor_parallel,
            rank=rank,
        )
        client = FleetClient(workers, tensor_parallel)
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=client, source=source)

    def send(self, version: int) -> None:
        """Send `version`; every train rank calls it.

        Raises:
            RuntimeError: an engine does not hold what was sent.
        """
        self._engine.send_weights()
        if self._rank != 0:
            return
        received = set(
            results(call(worker, Worker.finish_version, version) for worker in self._workers)
        )
        if received != {self._source.fingerprint}:
            raise RuntimeError(f"weights of version {version} changed on the way to the fleet")

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()
